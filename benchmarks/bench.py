"""How fast the stages' work is beside plain loops and bare networks: `make bench`.

Every pair runs in turns in one process, over the committed parameters (shape demo) and those of
conf/scale/full.yaml (shape full). Writes a CSV file for each subject to docs/benchmarks/ and, of
all that lie there, docs/benchmarks.md. On a machine without DVC, leave out startup and noop.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import compare_paths

import bench_memory
import bench_processes
import bench_quality
import bench_ranks
import bench_subjects
import bench_tables
from advloop.core.errors import UserError
from advloop.core.runtime import device

ROOT = compare_paths.ROOT
PROCESSES = {
    "startup": bench_processes.startup,
    "noop": bench_processes.noop,
    "ranks": bench_ranks.measure,
}
SUBJECTS = (*bench_subjects.SUBJECTS, *PROCESSES, "memory", "quality")


def chosen(names: str | None) -> list[str]:
    """The subjects of a comma-separated list, or all; UserError at an unknown one."""
    wanted = [name for name in (names or "").split(",") if name] or list(SUBJECTS)
    if unknown := set(wanted).difference(SUBJECTS):
        raise UserError(f"--only {min(unknown)}: unknown; choose from {','.join(SUBJECTS)}")
    return [name for name in SUBJECTS if name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="LIST", help=f"comma-separated: {','.join(SUBJECTS)}")
    parser.add_argument("--shapes", default="demo,full", metavar="LIST", help="demo,full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: the quicker one")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the results")
    args = parser.parse_args()
    where = device()
    precision = args.precision or bench_subjects.quick_precision(where)
    results = args.out / "benchmarks"
    for subject in chosen(args.only):
        print(f"{subject} …", flush=True)
        target = results / f"{where.type}_{subject}.csv"
        try:
            if subject == "memory":
                bench_tables.write_peaks(target, bench_memory.peaks())
            elif subject == "quality":
                bench_tables.write_qualities(target, bench_quality.qualities(where))
            elif make := PROCESSES.get(subject):
                found = make(args.rounds)
                bench_tables.write_samples(target, found, bench_tables.machine(where))
            else:
                shapes = args.shapes.split(",")
                found = bench_subjects.measure(subject, shapes, precision, where, args.rounds)
                bench_tables.write_samples(target, found, bench_tables.machine(where))
        except UserError as error:
            if args.only:
                raise
            print(f"left out: {error}", flush=True)  # the other subjects need nothing of it
    page = bench_tables.page(results)
    (args.out / "benchmarks.md").write_text(page)
    print(page)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

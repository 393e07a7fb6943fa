"""The speed of the stages' work, compared with plain loops and bare networks: `make bench`.

The contenders of a subject take turns in one process, with the committed parameters (shape demo)
and with those of conf/scale/full.yaml (shape full). Each subject is written to a CSV file in
docs/benchmarks/, and all files there make docs/benchmarks.md. The subjects startup and noop need
DVC.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import memory
import processes
import quality
import ranks
import subjects
import tables
from advloop.core.device import pick_device
from advloop.core.errors import UserError
from advloop.infra.output import print_safely
from shapes import ROOT, fast_precision

PROCESSES = {"startup": processes.startup, "noop": processes.noop, "ranks": ranks.measure}
SUBJECTS = (*subjects.SUBJECTS, *PROCESSES, "memory", "quality")


def chosen(names: str | None) -> list[str]:
    """The subjects of a comma-separated list, or all; UserError if one is unknown."""
    wanted = [name for name in (names or "").split(",") if name] or list(SUBJECTS)
    if unknown := set(wanted).difference(SUBJECTS):
        raise UserError(f"--only {min(unknown)}: unknown; choose from {','.join(SUBJECTS)}")
    return [name for name in SUBJECTS if name in wanted]


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="LIST", help=f"comma-separated: {','.join(SUBJECTS)}")
    parser.add_argument("--shapes", default="demo,full", metavar="LIST", help="demo,full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: the faster one")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the results")
    args = parser.parse_args()
    device = pick_device()
    precision = args.precision or fast_precision(device)
    results = args.out / "benchmarks"
    for subject in chosen(args.only):
        print(f"{subject} …", flush=True)
        target = results / f"{device.type}_{subject}.csv"
        try:
            if subject == "memory":
                tables.write(target, memory.peaks())
            elif subject == "quality":
                tables.write(target, quality.qualities(device))
            elif make := PROCESSES.get(subject):
                found = make(args.rounds)
                tables.write(target, found, tables.machine_name(device))
            else:
                shapes = args.shapes.split(",")
                found = subjects.measure(subject, shapes, precision, device, args.rounds)
                tables.write(target, found, tables.machine_name(device))
        except UserError as error:
            if args.only:
                raise
            print(f"left out: {error}", flush=True)  # the other subjects do not depend on it
    page = tables.page(results)
    (args.out / "benchmarks.md").write_text(page)
    print(page)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

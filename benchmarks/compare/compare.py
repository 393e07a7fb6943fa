"""Objectives against `none` over training seeds: `make compare` writes docs/results.md.

plan.yaml, committed before the runs, says which.

A cell is an arm (an objective, or the control of equal compute) with a training seed. It is one
experiment in DVC's queue, named `compare-ARM-SEED-DIGEST`. The digest covers everything that the
cell's scores follow from: an experiment of this name is a finished cell, and commits that change
nothing of that leave it finished. After an interruption or a failure, call it again: finished cells
stay, and finished stages of the others come from DVC's run-cache.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import yaml

import project
from advloop.core.errors import UserError
from advloop.core.files import write_json
from advloop.infra.output import print_safely
from cell_queue import enqueue, settle, start_worker, stop, wait
from cells import arms_of, cell, objectives_of, order_of_cells, seeds_of
from comparison import CONTROL, EQUAL_COMPUTE
from experiments import experiments
from results import PAGE, RESULTS, TRIED, collect, describe, save_pictures, write_page
from workspace import check_clean, one_at_a_time, restore_workspace

PLAN = yaml.safe_load((Path(__file__).parent / "plan.yaml").read_text())
SEEDS = ",".join(map(str, PLAN["seeds"]))
OBJECTIVES = ",".join(PLAN["objectives"])


def command_of(args: argparse.Namespace) -> str:
    if (args.objectives, args.seeds) == (OBJECTIVES, SEEDS):
        return "make compare"
    return (
        f"python benchmarks/compare/compare.py --objectives {args.objectives} --seeds {args.seeds}"
    )


def settings_of(objectives: Sequence[str]) -> dict[str, list[str]]:
    """What the plan changes in each objective, as Hydra overrides."""
    return {name: [*PLAN["settings"], *(PLAN["objectives"].get(name) or ())] for name in objectives}


def compare(args: argparse.Namespace) -> int:
    restore_workspace()
    check_clean()
    seeds = seeds_of(args.seeds)
    objectives = objectives_of(args.objectives)
    arms = arms_of(objectives, settings_of(objectives))
    by_name = {arm.name: arm for arm in arms}
    if EQUAL_COMPUTE not in by_name:
        print(f"no {EQUAL_COMPUTE}: no objective evaluates the network more often than {CONTROL}")
    order = order_of_cells(list(by_name), seeds)
    cells = [cell(by_name[name], seed) for name, seed in order]
    # Now, because commits that are made while the cells run are not theirs.
    results = describe(arms, seeds) | {"command": command_of(args)}
    done = experiments()
    finished = sum(cell.name in done for cell in cells)
    print(f"{len(cells)} cells, {finished} finished", flush=True)
    failed: list[str] = []
    if finished < len(cells):
        waiting = settle(cells)
        done = experiments()  # some may have ended while the queue was settled
        enqueue([cell for cell in cells if cell.name not in waiting and cell.name not in done])
        if "Running" not in waiting.values():
            start_worker()
        failed = wait(cells)
    results["cells"] = collect(cells)
    if results["cells"]:
        write_json(project.ROOT / RESULTS, results)
        save_pictures(cells)
        write_page()
    if failed:
        print(
            f"error: {len(failed)} of {len(cells)} cells failed ({', '.join(failed)}); "
            "`make compare` tries them again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def main() -> int:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--objectives", default=OBJECTIVES, help="with commas between them (default: %(default)s)"
    )
    parser.add_argument("--seeds", default=SEEDS, help="training seeds (default: %(default)s)")
    parser.add_argument(
        "--report-only",
        action="store_true",
        help=f"write {PAGE} from {RESULTS} and {TRIED}, and run nothing",
    )
    args = parser.parse_args()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a background job of a shell ignores it, and so would the worker that it starts,
    # which `dvc queue kill` interrupts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    try:
        if args.report_only:
            write_page()
            return 0
        with one_at_a_time():
            try:
                return compare(args)
            except KeyboardInterrupt:
                print("interrupted; stopping the queue", file=sys.stderr, flush=True)
                stop()
                restore_workspace()
                print("`make compare` goes on where it stopped", file=sys.stderr)
                return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""Where the time of a whole run goes: the stages' work, their start-up, and DVC.

`python benchmarks/speed/whole_run.py` runs `dvc repro --force`, or takes the time of a run that you
did yourself (`--wall SECONDS`). Each stage has left its own time in .state/timings. Start-up is the
time of `--help` of each stage script, which imports what the stage imports at its head. The rest is
DVC's: hashing, linking, and writing dvc.lock.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from advloop.core.errors import UserError
from advloop.infra.output import print_safely
from advloop.infra.timings import FOLDER, read_timings
from shapes import ROOT

REPEATS = 3


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def startup(script: str) -> float:
    return statistics.median(seconds(sys.executable, script, "--help") for _ in range(REPEATS))


def timed_stages() -> tuple[dict[str, list[float]], dict[int, float]]:
    """Last recorded seconds: of all runs of each stage script, and of each iteration together."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    recorded = {timing.stage: timing.seconds for timing in read_timings(ROOT / FOLDER)}
    if missing := sorted(lock.keys() - recorded.keys()):
        raise UserError(f"{FOLDER}: no time of stage {missing[0]}; run without --wall")
    scripts: dict[str, list[float]] = {}
    iterations: dict[int, float] = {}
    for name, stage in lock.items():
        scripts.setdefault(stage["cmd"].split()[1], []).append(recorded[name])
        if found := re.search(r"@([0-9]+)", name):
            index = int(found[1])
            iterations[index] = iterations.get(index, 0.0) + recorded[name]
    return scripts, iterations


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--wall", type=float, help="seconds of a finished run, instead of a new one"
    )
    args = parser.parse_args()
    wall = args.wall or seconds(str(Path(sys.executable).parent / "dvc"), "repro", "--force")
    scripts, iterations = timed_stages()
    work = starts = 0.0
    print("| stage script | runs | start-up, s | work, s |\n|---|---|---|---|")
    for script, times in scripts.items():
        each = startup(script)
        starts += len(times) * each
        work += sum(times) - len(times) * each
        print(
            f"| {script} | {len(times)} | {len(times) * each:.1f} | "
            f"{sum(times) - len(times) * each:.1f} |",
            flush=True,
        )
    rest = wall - work - starts
    print(
        f"\n{wall:.0f} s: the stages' work {work / wall:.0%}, their start-up {starts / wall:.0%}, "
        f"DVC {rest / wall:.0%}"
    )
    for index, time_taken in sorted(iterations.items()):
        print(f"iteration {index}: {time_taken:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

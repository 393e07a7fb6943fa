"""How much of a demo run is process start: imports before a stage does its work.

`python benchmarks/startup.py` times `--help` of every stage script (which imports all that
the stage imports at its head), multiplies by how often dvc.lock runs it, and compares the
sum with one timed `dvc repro --force` of the committed parameters, or with `--wall SECONDS`
of a run that you timed yourself.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wall", type=float, help="seconds of a whole run, instead of a new one")
    args = parser.parse_args()
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    scripts = Counter(stage["cmd"].split()[1] for stage in lock["stages"].values())
    total = 0.0
    print("| stage script | runs | start-up, s |\n|---|---|---|")
    for script, runs in scripts.items():
        median = statistics.median(
            seconds(sys.executable, script, "--help") for _ in range(REPEATS)
        )
        total += runs * median
        print(f"| {script} | {runs} | {median:.2f} |", flush=True)
    wall = args.wall or seconds(str(Path(sys.executable).parent / "dvc"), "repro", "--force")
    print(f"\nstart-up {total:.0f} s of {wall:.0f} s wall: {total / wall:.1%}")


if __name__ == "__main__":
    main()

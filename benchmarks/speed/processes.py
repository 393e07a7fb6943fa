"""What processes cost beside their work: starting a stage, and a `dvc repro` with nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from advloop.core.errors import UserError
from race import Sample
from shapes import ROOT

DVC = Path(sys.executable).parent / "dvc"
STARTS = 3  # of every script; from the second on, its files are in the page cache


def runs() -> Counter[str]:
    """How often a run of dvc.lock starts each stage script."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    return Counter(stage["cmd"].split()[1] for stage in lock["stages"].values())


def _timed(subject: str, shape: str, index: int, command: list[str], unit: str) -> Sample:
    began = time.perf_counter()
    before = _children()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds, cpu = time.perf_counter() - began, _children() - before
    return Sample(subject, shape, "advloop", True, index, seconds, cpu, 1.0, unit)


def _children() -> float:
    """CPU seconds of the child processes that have ended."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def startup(rounds: int) -> list[Sample]:
    """`--help` of every stage script: its imports, and no work.

    At most STARTS rounds. The shape is the script and how often a run of dvc.lock starts it.
    """
    samples = []
    for script, times in runs().items():
        for index in range(min(rounds, STARTS)):
            command = [sys.executable, script, "--help"]
            samples.append(_timed("startup", f"{script} ×{times}", index, command, "starts"))
    return samples


def noop(rounds: int) -> list[Sample]:
    """`dvc repro` of an up-to-date run; UserError if stages would run."""
    if not DVC.exists():
        raise UserError("--only noop: no dvc beside this Python; run `make setup`")
    status = subprocess.run([DVC, "status", "--quiet"], cwd=ROOT, check=False)
    if status.returncode:
        raise UserError("--only noop: `dvc status` names stages to run; run `dvc repro` first")
    stages = sum(runs().values())
    return [
        _timed("noop", f"{stages} stages", index, [str(DVC), "repro", "--quiet"], "repros")
        for index in range(rounds)
    ]

"""Run all checks and print a line for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path

from checkup import checkout, machine, project, storage, surroundings
from checkup.finding import Finding, warning

ROOT = Path(__file__).resolve().parents[2]
CHECKS: Mapping[str, Callable[[Path], Finding]] = {
    "python": machine.python,
    "git": machine.git,
    "make": machine.make,
    "user": surroundings.user,
    "folders": surroundings.folders,
    "identity": surroundings.identity,
    "locale": surroundings.locale,
    "shm": surroundings.shm,
    "disk": machine.disk,
    "packages": project.packages,
    "merge": checkout.merge,
    "lines": checkout.lines,
    "links": checkout.links,
    "params.yaml": project.params,
    "dvc.lock": project.lock,
    "remote": storage.remote,
    "cache": storage.cache,
    "locks": storage.locks,
    "gpu": machine.gpu,
}


def checked(check: Callable[[Path], Finding], root: Path) -> Finding:
    try:
        return check(root)
    except Exception as error:  # on a broken machine anything can fail, and that is worth a line
        reason = " ".join(str(error).split())[:200]
        said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        return warning(f"could not be checked ({said})", "report this line as a bug of doctor")


def line(name: str, finding: Finding) -> str:
    text = f"{finding.level:<8} {name:<13} {finding.text}"
    return f"{text} -> {finding.mend}" if finding.mend else text


def main(root: Path = ROOT) -> int:
    """Print a line for each check, and return how many found something wrong."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path in a terminal of ASCII
    counts = {"ok": 0, "warning": 0, "wrong": 0}
    for name, check in CHECKS.items():
        finding = checked(check, root)
        counts[finding.level] += 1
        print(line(name, finding), flush=True)
    plural = "" if counts["warning"] == 1 else "s"
    print(f"{counts['wrong']} wrong, {counts['warning']} warning{plural}, {counts['ok']} ok")
    return counts["wrong"]

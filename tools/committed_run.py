"""The end of `make demo`: what differs from the committed run, and how to restore it.

Another processor rounds differently, so that a newcomer's first run changes dvc.lock and reports/.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.errors import counted
from advloop.infra.output import print_safely

ROOT = Path(__file__).resolve().parents[1]
METRICS, PARAMS, MADE = "reports/metrics.json", "params.yaml", ("dvc.lock", "reports")
INTERVAL = "_ci95"
SHARE = (
    0.25  # of a score's interval: a smaller difference is rounding that trainings have amplified
)
RELATIVE = 0.02  # the same of a figure without an interval


def committed(project: Path, name: str) -> bytes | None:
    """A file as the last commit has it, or None."""
    command = ["git", "show", f"HEAD:{name}"]
    done = subprocess.run(command, cwd=project, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def figures(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """(dotted name, value) of every number in a JSON file's content."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from figures(value, f"{name}.{key}".lstrip("."))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, float(content)


def compared(theirs: Mapping[str, float], ours: Mapping[str, float]) -> list[str]:
    """What to say of the figures of the committed run and of this one, by name."""
    if theirs.keys() != ours.keys():
        names = sorted(theirs.keys() ^ ours.keys())
        return [f"{counted(len(names), 'figure')} of one run alone, {names[0]} first."]
    scale = {
        name: SHARE * theirs.get(f"{name}{INTERVAL}", 0.0) or RELATIVE * abs(value)
        for name, value in theirs.items()
        if not name.endswith(INTERVAL)
    }
    moved = {name: abs(ours[name] - theirs[name]) for name in scale if ours[name] != theirs[name]}
    if not moved:
        return ["All figures are those of the committed run."]

    def excess(name: str) -> float:
        return moved[name] / scale[name] if scale[name] else math.inf

    worst = max(moved, key=excess)
    interval = theirs.get(f"{worst}{INTERVAL}")
    within = "" if interval is None else f", ± {interval:.4g}"
    beyond = sum(excess(name) > 1 for name in moved)
    verdict = (
        f"{counted(beyond, 'figure')} by more than rounding"
        if beyond
        else "all within what rounding on another machine explains"
    )
    return [
        f"{len(moved)} of {counted(len(scale), 'figure')} differ from the committed run, "
        f"{verdict}; most: {worst} is {ours[worst]:.4g} instead of {theirs[worst]:.4g}{within}."
    ]


def report(project: Path) -> list[str]:
    """The lines to print about ``project``, where a run has just ended."""
    command = ["git", "status", "--porcelain", "--", *MADE]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    before = committed(project, METRICS)
    if done.returncode or before is None:
        return []  # no repository, or no committed run to compare with
    if not done.stdout:
        return ["The run is the committed one, byte for byte."]
    changed = [line[3:] for line in done.stdout.splitlines()]
    if committed(project, PARAMS) != (project / PARAMS).read_bytes():
        lines = ["The parameters are not those of the committed run, and neither are the figures."]
    else:
        ours = (project / METRICS).read_bytes()
        lines = compared(*(dict(figures(json.loads(text))) for text in (before, ours)))
    restore = f"git restore {' '.join(name for name in MADE if (project / name).exists())}"
    return [*lines, f"git shows {', '.join(changed)} as changed; to restore: `{restore}`"]


if __name__ == "__main__":
    print_safely()
    print(*report(ROOT), sep="\n")

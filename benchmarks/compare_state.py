"""What `make compare` remembers between runs: of this clone, as the experiments are."""

from __future__ import annotations

from typing import Any

import compare_paths

from advloop.core.io import read_json, write_json
from compare_git import experiments

# Start times, interrupted cells, a queueing under way.
STATE = ".dvc/tmp/compare.json"


def read_state() -> dict[str, Any]:
    empty: dict[str, Any] = {"events": [], "seconds": {}, "interrupted": []}
    path = compare_paths.ROOT / STATE
    return empty | (read_json(path) if path.exists() else {})


def remember(**changes: Any) -> None:
    write_json(compare_paths.ROOT / STATE, read_state() | changes)


def remember_event(seconds: float) -> None:
    """When a worker was free to begin the next cell."""
    remember(events=sorted({*read_state()["events"], round(seconds)})[-100:])


def remember_seconds(name: str) -> float | None:
    """Wall time of a finished cell: from what came last before it to its commit.

    One cell runs at a time, so that another experiment's end is this one's start; this holds
    as well for cells that ended while nobody watched.
    """
    state = read_state()
    if name not in state["seconds"] and name not in state["interrupted"]:
        done = experiments()
        end = done[name][1]
        before = [seconds for other, (_, seconds) in done.items() if other != name]
        starts = [seconds for seconds in [*before, *state["events"]] if seconds <= end]
        if not state["events"] or min(state["events"]) > end:
            return None  # made before this file was
        state["seconds"][name] = end - max(starts)
        remember(seconds=state["seconds"])
    found = state["seconds"].get(name)
    return None if found is None else float(found)


def remember_interrupted(name: str) -> None:
    remember(interrupted=sorted({*read_state()["interrupted"], name}))

"""The experiments of this clone, read through DVC, and how long each cell took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dvc.api
from dvc.repo import Repo

import project
from project import ask_dvc, read_state, remember


@dataclass(frozen=True)
class Experiment:
    commit: str
    ended: int  # Unix time of its commit


def experiments() -> dict[str, Experiment]:
    """Every experiment by name; the newest if several share a name.

    `dvc.api.exp_show` lists only those that started from the first parents of HEAD, reads the
    metrics and parameters of all these commits first, and gives times to the minute or the day.
    So this asks as `dvc exp list --all-commits` does.
    """

    def listed(repo: Repo) -> list[tuple[str, Experiment]]:
        by_baseline = repo.experiments.ls(all_commits=True)
        return [
            (name, Experiment(commit, repo.scm.resolve_commit(commit).commit_time))
            for pairs in by_baseline.values()
            for name, commit in pairs
        ]

    return dict(sorted(ask_dvc(listed), key=lambda pair: pair[1].ended))


def read_file(experiment: Experiment, path: str) -> bytes:
    """A file as the experiment left it.

    By its commit: DVC refuses a name that two experiments share. `dvc.api.metrics_show` would load
    the graph of each commit before it reads the same JSON.
    """
    content: bytes = dvc.api.read(path, repo=str(project.ROOT), rev=experiment.commit, mode="rb")
    return content


# --- Wall time ---


def remember_event(seconds: float) -> None:
    """When a worker was free to begin the next cell."""
    remember(events=sorted({*read_state()["events"], round(seconds)})[-100:])


def remember_interrupted(name: str) -> None:
    """The cell's next run would only show the time of the stages that are left."""
    remember(interrupted=sorted({*read_state()["interrupted"], name}))


def remember_seconds(name: str) -> float | None:
    """Wall time of a finished cell: from the last event before it to its commit.

    One cell runs at a time, so the end of one experiment is the start of the next, also for cells
    that ended while nobody watched. None if the cell was interrupted, or is older than the state.
    """
    state: dict[str, Any] = read_state()
    if name not in state["seconds"] and name not in state["interrupted"]:
        done = experiments()
        end = done[name].ended
        others = [other.ended for key, other in done.items() if key != name]
        starts = [seconds for seconds in [*others, *state["events"]] if seconds <= end]
        if not state["events"] or min(state["events"]) > end:
            return None
        state["seconds"][name] = end - max(starts)
        remember(seconds=state["seconds"])
    found = state["seconds"].get(name)
    return None if found is None else float(found)

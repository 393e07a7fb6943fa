"""Statistics of objectives compared over training seeds.

Results are the contents of docs/results.json: ``arms`` (name to objective, epochs, steps,
evaluations), ``cells`` (arm to seed to experiment, seconds, exam, rows), ``seeds``,
``smallest_change``, and how they were made. ``rows`` of a cell are the scores of its run, by model;
``exam`` has 1 for each view that passed the exam of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advloop.core.rounds import BASE
from advloop.evaluation.agreement import BETTER, UNCLEAR, WORSE, agree, says
from advloop.evaluation.results import AUTOENCODER
from advloop.evaluation.scores import mean_and_interval
from scores import VIEWED, Scores, columns, iterations_of, model_of

CONTROL = "none"
EQUAL_COMPUTE = "none_equal_compute"
TOO_FEW = "fewer than two seeds"  # of which there is no interval


@dataclass(frozen=True)
class Estimate:
    """Mean over training seeds, half its 95 % interval (None for a single seed), their number."""

    mean: float
    half: float | None
    count: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes zero."""
        return self.half is not None and abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate | None:
    """None if there are no values."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None, 1)
    return Estimate(*mean_and_interval(list(values)), len(values))


def arms_in_order(names: Sequence[str]) -> list[str]:
    """The control, the control of equal compute, then the others by name."""
    first = [name for name in (CONTROL, EQUAL_COMPUTE) if name in names]
    return first + sorted(set(names) - set(first))


class Comparison:
    """The finished runs of some results, by arm and seed."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.seeds: list[int] = list(results["seeds"])
        self.arms = arms_in_order(list(results["arms"]))
        self.runs: dict[str, dict[int, Scores]] = {
            arm: {int(seed): cell["rows"] for seed, cell in cells.items()}
            for arm, cells in results["cells"].items()
        }
        self.smallest: float = results["smallest_change"]
        exams = [one["exam"] for cells in results["cells"].values() for one in cells.values()]
        self.valid = [
            view.name for view in VIEWED if exams and all(exam[view.name] for exam in exams)
        ]
        runs = [run for by_seed in self.runs.values() for run in by_seed.values()]
        self.columns = columns(scores for run in runs for scores in run.values())
        self.iterations = iterations_of(model for run in runs for model in run)

    @property
    def last(self) -> str:
        """The model of the last iteration."""
        return model_of(self.iterations[-1])

    def values(self, arm: str, model: str, score: str) -> dict[int, float]:
        """By seed, from the runs that have this score."""
        return {
            seed: run[model][score]
            for seed, run in sorted(self.runs.get(arm, {}).items())
            if score in run.get(model, {})
        }

    def mean(self, arm: str, model: str, score: str) -> Estimate | None:
        return estimate(list(self.values(arm, model, score).values()))

    def shared(self, model: str, score: str) -> Estimate | None:
        """For a model that does not depend on the arm: one value a seed, from any arm."""
        found: dict[int, float] = {}
        for arm in self.arms:
            found = self.values(arm, model, score) | found
        return estimate(list(found.values()))

    def difference(
        self, first: tuple[str, str], second: tuple[str, str], score: str
    ) -> Estimate | None:
        """First minus second (arm, model), paired over the seeds that both have."""
        ours, theirs = self.values(*first, score), self.values(*second, score)
        return estimate([ours[seed] - theirs[seed] for seed in ours if seed in theirs])

    def to_control(self, arm: str, score: str) -> Estimate | None:
        """Difference to the control in the last iteration."""
        return self.difference((arm, self.last), (CONTROL, self.last), score)

    def view_of(self, score: str) -> str | None:
        """The name of the view that a score is of, or None."""
        metric = self.columns[score]
        return metric.name if metric in VIEWED else None

    def says(self, arm: str, score: str) -> str:
        """What a view says of an arm beside the control, over training seeds.

        BETTER or WORSE if the interval of the difference excludes zero and the difference exceeds
        the smallest that is worth naming, a share of the way from the base model to the bound.
        """
        difference = self.to_control(arm, score)
        if difference is None or difference.half is None:
            return TOO_FEW
        if not difference.differs:
            return UNCLEAR
        base, bound = self.shared(BASE, score), self.shared(AUTOENCODER, score)
        assert base is not None
        assert bound is not None
        smallest = self.smallest * max(base.mean - bound.mean, 0.0)
        return says(difference.mean, difference.half, smallest)

    def claim(self, arm: str) -> str:
        """What can be said of an arm beside the control: by the views that passed every exam.

        At least two have to say so, and none the opposite.
        """
        by: dict[str, list[str]] = {}
        for score in self.columns:
            if self.view_of(score) in self.valid:
                by.setdefault(self.says(arm, score), []).append(score)
        for wanted in (BETTER, WORSE):
            if agree(by, wanted):
                return wanted
        if set(by) == {TOO_FEW}:
            return TOO_FEW
        return "no change shown" if set(by) == {UNCLEAR} else "nothing can be concluded"

    def missing(self) -> list[tuple[str, int]]:
        """(arm, seed) of the cells that have not finished."""
        return [
            (arm, seed)
            for arm in self.arms
            for seed in self.seeds
            if seed not in self.runs.get(arm, {})
        ]

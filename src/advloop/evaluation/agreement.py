"""What the views say of a change from one model to another, and when they agree about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from advloop.evaluation.results import VIEWS, Results
from advloop.evaluation.scores import DECIMALS, Score, Scores, mean_and_interval

BETTER, WORSE, SMALL, UNCLEAR = "better", "worse", "too small to name", "no change shown"
ENOUGH = 2  # views that have to say so: no damage may fool a valid one, so none fools two at once


@dataclass(frozen=True)
class Finding:
    """The change of a view from one model to another. Lower is better.

    half: half the 95 % interval of the change. way: from the base model to the bound. smallest:
    the share of it that a change has to exceed to be named. valid: whether the view passed the
    exam of the run.
    """

    view: str
    title: str
    before: float
    after: float
    change: float
    half: float
    way: float
    smallest: float
    valid: bool

    @property
    def says(self) -> str:
        return says(self.change, self.half, self.smallest * self.way)


def says(change: float, half: float, smallest: float) -> str:
    """What a change says where lower is better: it counts beyond ``half`` and ``smallest``."""
    if abs(change) <= half:
        return UNCLEAR
    if abs(change) < smallest:
        return SMALL
    return BETTER if change < 0 else WORSE


def agree(by: Mapping[str, Sequence[str]], wanted: str) -> bool:
    """Whether at least ENOUGH views say BETTER (or WORSE), and none the opposite.

    by: the views that count, by what they say.
    """
    return len(by.get(wanted, [])) >= ENOUGH and not by.get(WORSE if wanted == BETTER else BETTER)


def change(before: Score, after: Score) -> tuple[float, float]:
    """Mean change of a score from one model to another, and half its 95 % interval.

    Paired by sampling seed, because both models' samples start from the same noise, and by the
    groups of the reals that are left out.
    """

    def differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
        rounded = [[round(value, DECIMALS) for value in values] for values in (first, second)]
        return [late - early for early, late in zip(*rounded, strict=True)]

    values = differences(before.values, after.values)
    return mean_and_interval(values, differences(before.without, after.without))


def compare(results: Results, before: Scores, after: Scores, split: str = "test") -> list[Finding]:
    """The changes of all views, against one split of the reals."""
    return [
        Finding(
            view,
            after.get(view).metric.title,
            before.get(view, split).mean,
            after.get(view, split).mean,
            *change(before.get(view, split), after.get(view, split)),
            max(results.base.get(view).mean - results.autoencoder.get(view).mean, 0.0),
            results.smallest,
            view in results.exam.valid,
        )
        for view in VIEWS
    ]


def by_says(found: Sequence[Finding]) -> dict[str, list[str]]:
    """The titles of the valid views, by what they say."""
    result: dict[str, list[str]] = {}
    for one in found:
        if one.valid:
            result.setdefault(one.says, []).append(one.title)
    return result


def agreed(found: Sequence[Finding], wanted: str) -> bool:
    """Whether the valid views ``agree`` on it."""
    return agree(by_says(found), wanted)


def rounds(results: Results) -> Mapping[str, list[Finding]]:
    """By round: the changes against the model that the round started from."""
    return {
        after.model: compare(results, before, after) for before, after in pairwise(results.models)
    }


def select(results: Results) -> str:
    """The model that is handed on.

    A later model replaces the chosen one if the views agree that it is better, on the tune images
    and on samples of their own, as is which views count. Otherwise the earlier one is kept. Only
    how large a change has to be follows from the test images.
    """
    chosen, *others = results.models
    for later in others:
        if agreed(compare(results, chosen, later, "tune"), BETTER):
            chosen = later
    return chosen.model

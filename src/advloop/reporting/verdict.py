"""The verdict on a run: whether its rounds helped, by how much, and what to beware of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from advloop.core.rounds import BASE
from advloop.evaluation.results import JUDGED_BY, KID, Results, change, changes, select
from advloop.evaluation.scores import Scores
from advloop.evaluation.summary import ACCURACY
from advloop.training.history import health_warning

BETTER, WORSE, UNCLEAR = "better", "worse", "no change shown"


@dataclass(frozen=True)
class Finding:
    """The change of a score between two models, paired by sampling seed. Lower is better.

    half: half the 95 % interval of the change.
    """

    title: str
    before: float
    after: float
    change: float
    half: float

    @property
    def says(self) -> str:
        if self.change < -self.half:
            return BETTER
        return WORSE if self.change > self.half else UNCLEAR


@dataclass(frozen=True)
class Verdict:
    """headline: one sentence. found: the changes from the base model to ``compared``, which is the
    selected model, or the last one if the base model is selected. rounds: the changes from the
    model before each round.
    """

    headline: str
    selected: str
    compared: str
    found: list[Finding]
    rounds: Mapping[str, list[Finding]]
    warnings: list[str]
    seeds: int


def compare(before: Scores, after: Scores) -> list[Finding]:
    """The changes of the scores that models are judged by."""
    return [
        Finding(
            after.get(metric).metric.title,
            before.get(metric).mean,
            after.get(metric).mean,
            *change(before, after, metric),
        )
        for metric in JUDGED_BY
    ]


def conclude(results: Results) -> Verdict:
    """The verdict on a run, which has at least one round."""
    models = results.models
    selected = select(models)
    compared = models[-1].model if selected == BASE else selected
    found = compare(results.base, results.model(compared))
    return Verdict(
        headline=_headline(selected, {finding.says for finding in found}),
        selected=selected,
        compared=compared,
        found=found,
        rounds={after.model: compare(before, after) for before, after in pairwise(models)},
        warnings=_warnings(results, selected),
        seeds=len(results.base.get(KID).values),
    )


def _headline(selected: str, says: set[str]) -> str:
    if selected == BASE:
        return "The rounds did not help: the base model is still the best."
    if BETTER in says and WORSE in says:
        return f"The rounds helped in part: {selected} is better in one score, worse in the other."
    if BETTER in says:
        return f"The rounds helped: {selected} is better than the base model."
    if WORSE in says:
        return f"The rounds made things worse: {selected} is worse than the base model."
    return f"It is unclear whether the rounds helped: {selected} may only differ by chance."


def worse_rounds(results: Results) -> list[str]:
    """A line for each round that raised a score by more than half its paired 95 % interval."""
    return [
        f"{model} made {name} of the test images worse by {mean:.4f} ± {half:.4f} "
        "(paired by sampling seed)"
        for model, found in changes(results).items()
        for name, (mean, half) in found.items()
        if mean > half
    ]


def _warnings(results: Results, selected: str) -> list[str]:
    lines = [f"{line}; the tune images choose the final model" for line in worse_rounds(results)]
    for model, training in results.training.items():
        accuracy = training.get(ACCURACY)
        if accuracy is not None and (warning := health_warning(accuracy)):
            lines.append(f"{model}: {warning}")
    if selected != (last := results.models[-1].model):
        lines.append(f"the last round is not the best: {selected} is selected, not {last}")
    return lines

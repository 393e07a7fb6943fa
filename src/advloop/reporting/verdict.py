"""The verdict on a run: whether its rounds helped, or why nothing can be concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from advloop.core.rounds import BASE
from advloop.evaluation.agreement import (
    BETTER,
    ENOUGH,
    SMALL,
    UNCLEAR,
    WORSE,
    Finding,
    agreed,
    by_says,
    compare,
    rounds,
    select,
)
from advloop.evaluation.exam_report import GARBAGE
from advloop.evaluation.results import GAP, VIEWS, Results
from advloop.evaluation.scores import with_interval
from advloop.evaluation.summary import ACCURACY, COLLAPSED, EPOCH
from advloop.training.history import health_warning

HELPED, HURT, NO_CHANGE, NOTHING = "helped", "hurt", "no change", "nothing"
# A critic's AUC above the first with a recall below the second: no overlap, nothing to compare.
APART, NO_RECALL = 0.99, 0.01
AUC, RECALL = "critic_auc", "recall"


@dataclass(frozen=True)
class Verdict:
    """kind: HELPED, HURT, NO_CHANGE or NOTHING. headline: one sentence; reasons: why nothing can
    be concluded.

    found: the changes from the base model to ``compared``, which is the selected model, or the
    last one if the base model is selected. rounds: the changes from the model before each round.
    """

    kind: str
    headline: str
    reasons: list[str]
    selected: str
    compared: str
    found: list[Finding]
    rounds: Mapping[str, list[Finding]]
    warnings: list[str]
    seeds: int


def conclude(results: Results) -> Verdict:
    """The verdict on a run, which has at least one round."""
    selected = select(results)
    compared = results.models[-1].model if selected == BASE else selected
    found, each = compare(results, results.base, results.model(compared)), rounds(results)
    what = "round" if len(results.models) == 2 else "rounds"  # beside the base model
    kind, sentence = _verdict(found, compared, what)
    if reasons := obstacles(results):
        kind, sentence = NOTHING, "The views cannot judge this base model."
    headline = f"Nothing can be concluded. {sentence}" if kind == NOTHING else sentence
    warnings, seeds = _warnings(results, each, selected), len(results.base.get(GAP).values)
    return Verdict(kind, headline, reasons, selected, compared, found, each, warnings, seeds)


def obstacles(results: Results) -> list[str]:
    """Why nothing could be concluded whatever the rounds did; empty if they can be judged."""
    exam, base, lines = results.exam, results.base, []
    titles = {view: base.get(view).metric.title for view in VIEWS}
    ahead: dict[str, list[str]] = {}
    for view in VIEWS:
        for row in exam.failures(view):
            if row.kind == GARBAGE:
                ahead.setdefault(row.case, []).append(titles[view])
    for case, views in ahead.items():
        lines.append(f"the base model is behind garbage ({case}) in {_listed(views)}")
    if len(exam.valid) < ENOUGH:
        passed = _listed([titles[view] for view in exam.valid]) or "none"
        lines.append(
            f"of {len(VIEWS)} views, {passed} passed the exam of this run; {ENOUGH} are needed"
        )
    auc, recall = base.find(AUC), base.find(RECALL)
    if auc and recall and auc.mean > APART and recall.mean < NO_RECALL:
        lines.append(
            f"critics tell the base model's samples from real ones at AUC {auc.mean:.3f}, and "
            f"their recall is {recall.mean:.2f}"
        )
    return lines


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def _verdict(found: Sequence[Finding], compared: str, what: str) -> tuple[str, str]:
    """The kind of verdict, and its sentence."""
    by = by_says(found)
    parts = "; ".join(f"{_listed(titles)}: {says}" for says, titles in by.items())
    if agreed(found, BETTER):
        return HELPED, f"The {what} of this run helped ({compared}: {parts})."
    if agreed(found, WORSE):
        return HURT, f"The {what} of this run hurt ({compared}: {parts})."
    if set(by) == {UNCLEAR}:
        return NO_CHANGE, f"No change shown in this run: {compared} may differ only by chance."
    if set(by) <= {UNCLEAR, SMALL}:
        return NOTHING, f"The changes of {compared} are smaller than any that is worth naming."
    return NOTHING, f"The views do not agree about {compared} ({parts})."


def _warnings(results: Results, each: Mapping[str, Sequence[Finding]], selected: str) -> list[str]:
    lines = [
        f"{model} made {one.title} worse by {with_interval(one.change, one.half)}"
        for model, found in each.items()
        for one in found
        if one.valid and one.says == WORSE
    ]
    for model, training in results.training.items():
        accuracy = training.get(ACCURACY)
        if accuracy is not None and (warning := health_warning(accuracy)):
            lines.append(f"{model}: {warning}")
        if training.get(COLLAPSED):
            lines.append(
                f"{model}: the discriminator collapsed in epoch {training[EPOCH]:.0f} of "
                "train_diffusion and ended the round, with the weights from before; lower "
                "train_diffusion.learning_rate, or raise objective.discriminator_steps"
            )
    if selected != (last := results.models[-1].model):
        lines.append(f"the last round is not handed on: {selected} is selected, not {last}")
    return lines

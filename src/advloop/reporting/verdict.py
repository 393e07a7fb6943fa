"""What a run says: whether its rounds helped, by how much, and what to be wary of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from advloop.health import health_warning
from advloop.reporting.report import worse_rounds
from advloop.selection import START, Rows, change, kid_name, models_in_order, select

BETTER, WORSE, UNCLEAR = "better", "worse", "no change shown"


@dataclass(frozen=True)
class Finding:
    """Change of a figure from one model to another, paired by sampling seed; lower is better.

    half: of its 95 % interval.
    """

    figure: str
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
    """headline: one sentence. found: from the base model to the selected one, or where that is
    the base model itself, to the last. rounds: of each round against the one before.
    """

    headline: str
    selected: str
    compared: str
    found: list[Finding]
    rounds: Mapping[str, list[Finding]]
    warnings: list[str]
    seeds: int


def compare(rows: Rows, after: str, before: str) -> list[Finding]:
    """KID and the critics' gap."""
    return [
        Finding(
            title,
            float(rows[before][figure]),
            float(rows[after][figure]),
            *change(rows, after, before, figure),
        )
        for title, figure in (("KID", kid_name(rows[after])), ("critic gap", "critic_gap"))
    ]


def judge(rows: Rows) -> Verdict:
    """The verdict on the rows of an evaluation, at least one round among them."""
    models = models_in_order(rows)
    selected = select(rows)
    compared = models[-1] if selected == START else selected
    found = compare(rows, compared, START)
    return Verdict(
        headline=_headline(selected, {finding.says for finding in found}),
        selected=selected,
        compared=compared,
        found=found,
        rounds={name: compare(rows, name, before) for before, name in pairwise(models)},
        warnings=_warnings(rows, models[-1], selected),
        seeds=len(rows[START]["seeds"][kid_name(rows[START])]),
    )


def _headline(selected: str, says: set[str]) -> str:
    if selected == START:
        return "The rounds did not help: the base model stays the best."
    if BETTER in says and WORSE in says:
        return f"The rounds helped in part: {selected} is better in one figure, worse in another."
    if BETTER in says:
        return f"The rounds helped: {selected} is better than the base model."
    if WORSE in says:
        return f"The rounds made things worse: {selected} is worse than the base model."
    return f"It is not shown that the rounds helped: {selected} is within chance of the base model."


def _warnings(rows: Rows, last: str, selected: str) -> list[str]:
    lines = [f"{line}; the final model goes by the tune images" for line in worse_rounds(rows)]
    for name in models_in_order(rows):
        row: Mapping[str, Any] = rows[name]
        accuracy = row.get("disc_val_accuracy")
        if accuracy is not None and (warning := health_warning(accuracy)):
            lines.append(f"{name}: {warning}")
    if selected != last:
        lines.append(f"the last round is not the best: {selected} is selected, not {last}")
    return lines

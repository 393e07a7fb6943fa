"""Which model of a run is the final one, and which rounds made things worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from advloop.core.errors import UserError
from advloop.intervals import mean_and_interval

Rows = Mapping[str, Mapping[str, Any]]
"""Rows of models by name; ``seeds`` of a row holds each metric's values by sampling seed."""

START = "base"


def kid_names(row: Mapping[str, Any]) -> list[str]:
    """``kid_{network}`` of every network that a row was measured in."""
    return [name for name in row if name.startswith("kid_") and not name.endswith("_ci95")]


def kid_name(row: Mapping[str, Any]) -> str:
    """The one that a row of an evaluation has."""
    names = kid_names(row)
    if len(names) != 1:
        raise UserError(f"evaluation: {len(names)} KID columns in one row, not 1; run `dvc repro`")
    return names[0]


def iteration_of(name: str) -> int | None:
    """The number i of ``iter_i``, -1 of the base model, None of what is no model of the loop."""
    if name == START:
        return -1
    return int(name.removeprefix("iter_")) if name.startswith("iter_") else None


def models_in_order(rows: Rows) -> list[str]:
    """Base model, then the iterations by number."""
    numbers = {name: number for name in rows if (number := iteration_of(name)) is not None}
    return sorted(numbers, key=numbers.__getitem__)


def select(rows: Rows) -> str:
    """The model of the lowest KID on the tune images, which no reported figure looks at.

    Of equal ones the earlier. The lowest mean wins, however little it leads by.
    """
    models = models_in_order(rows)
    return min(models, key=lambda name: float(rows[name][f"tune_{kid_name(rows[name])}"]))


def change(rows: Rows, name: str, before: str, metric: str) -> tuple[float, float]:
    """Mean change of a metric from one model to another, and half its 95 % interval.

    Paired by sampling seed: both models' samples start from the same noise.
    """
    pairs = zip(_seeds(rows, name, metric), _seeds(rows, before, metric), strict=True)
    return mean_and_interval([after - earlier for after, earlier in pairs])


def _seeds(rows: Rows, name: str, metric: str) -> Sequence[float]:
    try:
        values: Sequence[float] = rows[name]["seeds"][metric]
    except (KeyError, TypeError):
        raise UserError(f"evaluation: {name} has no {metric} by seed; run `dvc repro`") from None
    return values


def verdicts(rows: Rows) -> dict[str, dict[str, tuple[float, float]]]:
    """By round: change of KID and of the critics' gap against the model that it started from.

    Of both, lower is better; each with half its interval.
    """
    return {
        name: {
            metric: change(rows, name, before, metric)
            for metric in (kid_name(rows[name]), "critic_gap")
        }
        for before, name in pairwise(models_in_order(rows))
    }

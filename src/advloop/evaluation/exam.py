"""The exam of the figures that models are judged by: does garbage or damage fool them?

A figure that prefers damaged images, or that puts garbage ahead of a model, rewards the damage and
not the model. It is examined on the images of the run itself, because it depends on them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from advloop.core.random import generator
from advloop.evaluation.corruptions import CORRUPTIONS, GARBAGE, STRENGTHS

Images = npt.NDArray[np.uint8]
Values = Mapping[str, float]  # by figure; lower is better
Measure = Callable[[Images], Values]

SEES, BLIND, FOOLED = "sees", "blind", "fooled"
NOISE = "decoded noise"
GAIN = 0.1  # of the way from the model to the bound: what damage to its samples may gain


@dataclass(frozen=True)
class Sets:
    """Equal numbers of images (N, S, S, 3).

    clean: several draws of real ones. bound: one of them through the autoencoder. samples: of the
    model. gaussian: decoded latents of pure noise.
    """

    clean: Sequence[Images]
    bound: Images
    samples: Images
    gaussian: Images


@dataclass(frozen=True)
class Row:
    """One case. values: for each strength, the figures. found: by figure, SEES, BLIND or FOOLED."""

    kind: str
    case: str
    values: Sequence[Values]
    found: Mapping[str, str]


@dataclass(frozen=True)
class Report:
    """clean, bound, samples: the figures of those sets. spread: the deviation over clean draws."""

    clean: Values
    spread: Values
    bound: Values
    samples: Values
    rows: Sequence[Row]

    def failures(self, figure: str) -> list[str]:
        """The cases that fool a figure."""
        return [f"{row.case} ({row.kind})" for row in self.rows if row.found[figure] == FOOLED]


def of_garbage(value: float, samples: float) -> str:
    """Garbage has to be behind the model."""
    return SEES if value > samples else FOOLED


def of_real(values: Sequence[float], clean: float, spread: float) -> str:
    """Damaged real images have to be behind the same images, the more so the stronger it is.

    A figure is blind to what changes it by less than two deviations of its clean draws.
    """
    if min(values) < clean - 2 * spread:
        return FOOLED
    rising = all(a < b for a, b in zip([clean, *values], values, strict=False))
    return SEES if rising and values[-1] > clean + 2 * spread else BLIND


def of_samples(values: Sequence[float], samples: float, bound: float) -> str:
    """Damage to a model's samples may gain at most GAIN of the way from them to the bound."""
    allowed = GAIN * max(samples - bound, 0.0)
    return FOOLED if min(values) < samples - allowed else SEES


def examine(
    sets: Sets,
    measure: Measure,
    seed: int,
    progress: Callable[[Iterable[str]], Iterable[str]] = lambda cases: cases,
) -> Report:
    """Every case of GARBAGE and CORRUPTIONS; damage is laid on the first clean draw and on samples.

    ``progress`` wraps the names of the cases.
    """
    draws = [measure(images) for images in sets.clean]
    clean, bound, samples = draws[0], measure(sets.bound), measure(sets.samples)
    spread = {name: statistics.stdev(draw[name] for draw in draws) for name in clean}

    def garbage(case: str, images: Images) -> Row:
        value = measure(images)
        found = {name: of_garbage(value[name], samples[name]) for name in clean}
        return Row("garbage", case, [value], found)

    def damaged(case: str, images: Images) -> tuple[list[Values], dict[str, list[float]]]:
        values = [
            measure(CORRUPTIONS[case](images, strength, generator(seed, "exam", case)))
            for strength in range(STRENGTHS)
        ]
        return values, {name: [value[name] for value in values] for name in clean}

    rows = []
    for case in progress([NOISE, *GARBAGE, *CORRUPTIONS]):
        if case == NOISE:
            rows.append(garbage(case, sets.gaussian))
        elif case in GARBAGE:
            made = GARBAGE[case](sets.clean[0], generator(seed, "exam", case))
            rows.append(garbage(case, made))
        else:
            values, by_name = damaged(case, sets.clean[0])
            found = {k: of_real(own, clean[k], spread[k]) for k, own in by_name.items()}
            rows.append(Row("real", case, values, found))
            values, by_name = damaged(case, sets.samples)
            found = {k: of_samples(own, samples[k], bound[k]) for k, own in by_name.items()}
            rows.append(Row("samples", case, values, found))
    return Report(clean, spread, bound, samples, rows)


def agreeing(report: Report, views: Sequence[str]) -> list[str]:
    """The cases of garbage or damaged samples that all ``views`` prefer to the model's samples.

    Preferred: by more than two deviations of the clean draws. A claim that needs the views to agree
    would be fooled by these.
    """
    fooled = []
    for row in report.rows:
        if row.kind == "real":
            continue
        for strength, value in enumerate(row.values):
            if all(value[v] < report.samples[v] - 2 * report.spread[v] for v in views):
                fooled.append(f"{row.case} ({row.kind}, strength {strength + 1})")
    return fooled

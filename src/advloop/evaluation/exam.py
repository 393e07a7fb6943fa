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

from advloop.core.random import generator, noise_for
from advloop.evaluation import corruptions
from advloop.evaluation.corruptions import CORRUPTIONS
from advloop.evaluation.exam_report import (
    BLIND,
    FOOLED,
    GARBAGE,
    REAL,
    SAMPLES,
    SEES,
    Report,
    Row,
    Values,
)
from advloop.evaluation.floor import Floor
from advloop.evaluation.views import VIEWS, Drawn, Views
from advloop.models.codec import Codec

Images = npt.NDArray[np.uint8]
Measure = Callable[[Images], Values]

NOISE = "decoded noise"
IMAGES = 48  # of each set: what a run can spend on it
ALL = dict.fromkeys((REAL, SAMPLES), range(corruptions.STRENGTHS))
SHORT = {REAL: (1,), SAMPLES: (0, 1)}  # faint damage is what fools; a run has little time


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


def of_samples(
    values: Sequence[float], samples: float, bound: float, spread: float, share: float
) -> str:
    """Damage to a model's samples may gain at most a ``share`` of the way to the bound.

    Or two deviations of clean draws, if that is more: such a gain may be chance.
    """
    allowed = max(share * (samples - bound), 2 * spread)
    return FOOLED if min(values) < samples - allowed else SEES


def examine(
    sets: Sets,
    measure: Measure,
    seed: int,
    share: float,
    strengths: Mapping[str, Sequence[int]] = ALL,
    progress: Callable[[Iterable[str]], Iterable[str]] = lambda cases: cases,
) -> Report:
    """Every case of garbage and damage; damage is laid on the first clean draw and on samples.

    share: of the way from the model to the bound that damage to its samples may gain. strengths: of
    the damage, by what it is laid on. ``progress`` wraps the names of the cases.
    """
    draws = [measure(images) for images in sets.clean]
    clean, bound, samples = draws[0], measure(sets.bound), measure(sets.samples)
    spread = {name: statistics.stdev(draw[name] for draw in draws) for name in clean}

    def garbage(case: str, images: Images) -> Row:
        value = measure(images)
        found = {name: of_garbage(value[name], samples[name]) for name in clean}
        return Row(GARBAGE, case, [value], found)

    def damaged(
        case: str, kind: str, images: Images
    ) -> tuple[list[Values], dict[str, list[float]]]:
        values = [
            measure(CORRUPTIONS[case](images, strength, generator(seed, "exam", case)))
            for strength in strengths[kind]
        ]
        return values, {name: [value[name] for value in values] for name in clean}

    rows = []
    for case in progress([NOISE, *corruptions.GARBAGE, *CORRUPTIONS]):
        if case == NOISE:
            rows.append(garbage(case, sets.gaussian))
        elif case in corruptions.GARBAGE:
            made = corruptions.GARBAGE[case](sets.clean[0], generator(seed, "exam", case))
            rows.append(garbage(case, made))
        else:
            values, by_name = damaged(case, REAL, sets.clean[0])
            found = {k: of_real(own, clean[k], spread[k]) for k, own in by_name.items()}
            rows.append(Row(REAL, case, values, found))
            values, by_name = damaged(case, SAMPLES, sets.samples)
            found = {
                k: of_samples(own, samples[k], bound[k], spread[k], share)
                for k, own in by_name.items()
            }
            rows.append(Row(SAMPLES, case, values, found))
    return Report(len(sets.samples), clean, spread, bound, samples, rows)


def decoded_noise(codec: Codec, shape: tuple[int, ...], seed: int) -> Images:
    """IMAGES images decoded from standard normal latents (C, H, W)."""
    return codec.decode(noise_for(range(IMAGES), shape, seed, "exam"))


def examine_views(
    floor: Floor,
    samples: Images,
    gaussian: Images,
    views: Views,
    draw: Callable[[Images], Drawn],
    strengths: Mapping[str, Sequence[int]],
    progress: Callable[[Iterable[str]], Iterable[str]],
) -> Report:
    """The exam of a run's views, on at most IMAGES images a set.

    samples: of the base model; gaussian: decoded noise; draw: images as the views take them.
    """

    def measure(images: Images) -> Values:
        values = views(draw(images), 0, jackknife=False)
        return {metric.name: values[metric].value for metric in VIEWS}

    sets = Sets(
        [one.images[:IMAGES] for one in floor.clean],
        floor.bound[0].images[:IMAGES],
        samples[:IMAGES],
        gaussian[:IMAGES],
    )
    share = views.params.smallest_change
    return examine(sets, measure, views.seed, share, strengths, progress)

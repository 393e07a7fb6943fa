"""The whole judge, from images to verdict: what it says of models that are none.

Rooms of one colour, an autoencoder of random weights and simple features: small, but nothing
between the images and the headline is invented.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from rectangles import PALETTE, rooms
from small_evaluation import evaluate_params, small_codec
from torch.nn import functional as F

from advloop.evaluation.critic import statistics
from advloop.evaluation.exam import SHORT, Sets, decoded_noise, examine
from advloop.evaluation.results import AUTOENCODER, REALS, VIEWS, Results
from advloop.evaluation.scores import Scores
from advloop.evaluation.views import Drawn, RealSet, Views, image_statistics, view_scores
from advloop.reporting.verdict import HELPED, NOTHING, Verdict, conclude

CPU, COUNT = torch.device("cpu"), 24
CODEC = small_codec()
PARAMS = evaluate_params(critic_widths=[], critic_epochs=20)
Model = Callable[[int], np.ndarray]
"""Images (COUNT, 32, 32, 3) for a seed."""


def features(images: np.ndarray) -> torch.Tensor:
    """How much of each colour is where: a network of random weights would prefer static."""
    colours = np.concatenate([PALETTE, [[30, 30, 30], [240, 240, 240]]])
    away = np.square(images[:, :, :, None].astype(float) - colours).sum(-1)
    nearness = torch.from_numpy(np.exp(-away / (2 * 60**2))).movedim(3, 1).float()
    return 4 * F.adaptive_avg_pool2d(nearness, 4).flatten(1)


def drawn(images: np.ndarray) -> Drawn:
    return Drawn(images, CODEC.encode(images), features(images))


def real_set(seed: int) -> RealSet:
    images, groups = rooms(seed, 36), [str(row % 6) for row in range(36)]
    found = statistics(CODEC.encode(images), CPU)[None], image_statistics(images, CPU)[None]
    return RealSet(images, features(images), groups, *found)


def real(seed: int) -> np.ndarray:
    return rooms(300 + seed, COUNT)


@cache
def sides() -> dict[str, Views]:
    return {
        split: Views(real_set(seed), PARAMS, 0, CPU)
        for split, seed in (("test", 100), ("tune", 200))
    }


def scores(name: str, model: Model) -> Scores:
    found = []
    for split, start in (("test", 0), ("tune", 50)):
        sets = [drawn(model(start + k)) for k in range(3)]
        values = [sides()[split](one, k, jackknife=split == "test") for k, one in enumerate(sets)]
        found += view_scores(values, "edges", split)
    return Scores(name, tuple(found))


@cache
def floor_and_perfect_round() -> tuple[Scores, Scores]:
    return scores(REALS, real), scores("iter_0", lambda seed: rooms(400 + seed, COUNT))


def verdict(base: Model) -> Verdict:
    """Of a run whose base model draws these images, and whose only round the real thing."""

    def measure(images: np.ndarray) -> dict[str, float]:
        values = sides()["test"](drawn(images), 0)
        return {metric.name: values[metric].value for metric in values if metric.name in VIEWS}

    noise = decoded_noise(CODEC, (4, 8, 8), 0)[:COUNT]
    sets = Sets([real(k) for k in range(3)], real(0), base(0), noise)
    exam = examine(sets, measure, 0, 0.1, SHORT)
    floor, last = floor_and_perfect_round()
    models, bound = (scores("base", base), last), Scores(AUTOENCODER, floor.scores)
    return conclude(Results(floor, bound, models, exam, {"iter_0": {}}, PARAMS.smallest_change))


def untrained(seed: int) -> np.ndarray:
    stream = torch.Generator().manual_seed(seed)
    return CODEC.decode(torch.randn(COUNT, 4, 8, 8, generator=stream))


def static(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(COUNT, 32, 32, 3), dtype=np.uint8)


def repeated(_: int) -> np.ndarray:
    return rooms(7, 1).repeat(COUNT, 0)


pytestmark = pytest.mark.xdist_group("verdict")  # one worker: the floor is measured once


@pytest.mark.parametrize("model", [untrained, static, repeated])
def test_nothing_is_concluded_about_a_base_model_that_is_none(model, capsys):
    """Its round draws the real thing, so a judge without an exam would be delighted."""
    found = verdict(model)
    print(found.headline, *found.reasons, sep="\n- ")
    assert found.kind == NOTHING
    said = capsys.readouterr().out
    assert said.startswith("Nothing can be concluded. The views cannot judge this base model.\n- ")
    assert "is behind garbage" in said


def test_a_round_that_draws_the_real_thing_helps_a_base_model_that_nearly_does():
    """Else a judge that always says nothing would pass the test above."""

    def tinted(seed: int) -> np.ndarray:
        tint = np.array([0, 22, 0])  # which no damage of the exam takes away
        return np.clip(rooms(500 + seed, COUNT) - tint, 0, 255).astype(np.uint8)

    found = verdict(tinted)
    assert (found.kind, found.selected) == (HELPED, "iter_0"), (found.headline, found.reasons)

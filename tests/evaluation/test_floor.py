"""The scores of real images: other ones as they are, and through the autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_evaluation import evaluate_params, small_codec

from advloop.core.errors import UserError
from advloop.data.classes import Classes
from advloop.data.dataset import Dataset
from advloop.data.draws import draw_images
from advloop.evaluation import floor, metrics
from advloop.evaluation.features import load_features
from advloop.evaluation.floor import Sources, make_reals, measure_reals

CPU = torch.device("cpu")
SPLITS = ["train"] * 24 + ["tune"] * 6 + ["test"] * 8
GROUPS = [f"train{k // 6}" for k in range(24)] + ["tune"] * 6 + [f"test{k // 2}" for k in range(8)]


def some_sources(classes: bool = False) -> Sources:
    """Latents of training and test images in two variants, which are not those of the images."""
    pixels = np.random.default_rng(0).integers(256, size=(38, 32, 32, 3), dtype=np.uint8)
    stream, codec = torch.Generator().manual_seed(0), small_codec()
    names = [("a", "b")[k % 2] for k in range(38)] if classes else []
    labels = {name: torch.tensor([0, 1]).repeat(n) for name, n in (("train", 24), ("test", 8))}
    return Sources(
        data=Path("data"),
        latents=Path("latents"),
        dataset=Dataset(pixels, [f"{k}.png" for k in range(38)], GROUPS, SPLITS, names),
        augmentation="hflip",
        features=load_features("encoder", codec, 32, CPU),
        codec=codec,
        train=torch.randn(48, 4, 8, 8, generator=stream),
        test=torch.randn(16, 4, 8, 8, generator=stream),
        classes=Classes(("a", "b"), labels) if classes else None,
        params=evaluate_params(),
        seed=0,
        device=CPU,
    )


@pytest.fixture(scope="module")
def measured():
    sources = some_sources()
    return measure_reals(sources, make_reals(sources), lambda items: items)


def test_floor_has_the_critics_and_the_bound_only_metrics_of_images(measured):
    reals, bound = measured
    assert (reals.model, bound.model) == ("reals", "autoencoder")
    images = {f"{metric.name}_encoder" for metric in metrics.METRICS} | {"tune_kid_encoder"}
    assert {score.name for score in bound.scores} == images
    critics = {"critic_accuracy", "critic_auc", "critic_gap"}
    assert {score.name for score in reals.scores} == images | critics
    assert {len(score.values) for score in (*reals.scores, *bound.scores)} == {3}


def test_the_bound_differs_from_the_floor_by_what_the_autoencoder_costs(measured, monkeypatch):
    reals, bound = measured
    assert bound.get("kid") != reals.get("kid")
    sources = some_sources()
    images = iter(sources.images("train", 18).reshape(3, 6, 32, 32, 3))
    monkeypatch.setattr(sources.codec, "decode", lambda _: next(images))
    lossless = measure_reals(sources, make_reals(sources), lambda items: items)[1]
    assert lossless.get("kid") == reals.get("kid")


def test_reals_are_the_test_images_with_their_groups_and_variants():
    sources = some_sources()
    reals = make_reals(sources)
    assert [len(reals.features[name]) for name in ("tune", "test")] == [6, 8]
    assert reals.groups == GROUPS[30:]
    assert torch.equal(reals.latents.flatten(0, 1), sources.test)
    assert reals.labels is None


def test_classes_are_those_of_the_images_that_were_drawn():
    sources = some_sources(classes=True)
    for scores in measure_reals(sources, make_reals(sources), lambda items: items):
        assert len(scores.get("class_kid").values) == 3
    grey = np.zeros_like(sources.dataset.images)
    grey[np.array(sources.dataset.classes) == "b"] = 255
    sources = replace(sources, dataset=replace(sources.dataset, images=grey))
    for split, count in (("train", 18), ("test", None)):
        labels, images = sources.labels(split, count), sources.images(split, count)
        assert labels.tolist() == (images[:, 0, 0, 0] // 255).tolist()
    assert torch.equal(make_reals(sources).labels, sources.labels("test"))


def test_critics_of_the_floor_know_the_groups_of_each_training_latent(monkeypatch):
    """Latents that are row numbers say which images the critics were given."""
    sources = some_sources()
    rows = torch.arange(48.0).view(48, 1, 1, 1).expand(48, 4, 8, 8)
    sources, seen = replace(sources, train=rows), []

    def spy(*args):
        seen.extend([args[2], args[-1]])
        return []

    reals = make_reals(some_sources())
    monkeypatch.setattr(floor, "two_sample_test", spy)
    measure_reals(sources, reals, lambda items: items)
    chosen = [part[:, 0, 0, 0].long().tolist() for part in seen[0]]
    assert [len(part) for part in chosen] == [6, 6, 6]
    assert len({row for part in chosen for row in part}) == 18
    assert max(max(part) for part in chosen) >= 24  # variants too
    assert seen[1] == [[GROUPS[row % 24] for row in part] for part in chosen]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test": torch.zeros(15, 4, 8, 8)}, r"latents/test\.pt: 15 latents of 8 images; remake"),
        (
            {"classes": some_sources(classes=True).classes},
            r"data/manifest\.csv: has 0 classes, but the latents have 2; remake both",
        ),
    ],
)
def test_images_and_latents_that_do_not_belong_together_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        make_reals(replace(some_sources(), **changes))


def test_parts_of_the_drawn_images_hold_images_of_every_group():
    """Groups follow each other in the manifest; a third of the draw must hold images of each."""
    images = np.repeat(np.arange(60, dtype=np.uint8), 4 * 4 * 3).reshape(60, 4, 4, 3)
    groups = [f"g{row // 20}" for row in range(60)]
    dataset = Dataset(images, [str(row) for row in range(60)], groups, ["train"] * 60)
    found = draw_images(dataset, "train", "dihedral", torch.Generator().manual_seed(0), 45)
    rows = found[:, 0, 0, 0].astype(int)
    assert len(set(rows.tolist())) == 45
    for part in np.array_split(rows, 3):
        # 15 of 60 rows, of which 20 are of a group: none of them has chance 0.0008
        assert set(part // 20) == {0, 1, 2}

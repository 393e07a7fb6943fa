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
from advloop.data.draws import draw_images, draw_rows
from advloop.evaluation import metrics
from advloop.evaluation.features import load_features
from advloop.evaluation.floor import Floor, Sources, make_reals, measure_reals
from advloop.evaluation.views import VIEWS, Views, image_statistics

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


def measure(sources: Sources) -> Floor:
    reals = make_reals(sources)
    views = Views(reals.test, sources.params, 0, CPU)
    return measure_reals(sources, reals, views, lambda items: items)


@pytest.fixture(scope="module")
def floor() -> Floor:
    return measure(some_sources())


def test_floor_and_bound_have_every_view_and_every_metric(floor):
    reals, bound = floor.scores
    assert (reals.model, bound.model) == ("reals", "autoencoder")
    expected = {metric.name for metric in (*VIEWS, *metrics.METRICS)}
    for scores in floor.scores:
        assert expected <= {score.metric.name for score in scores.scores}
        assert {len(score.values) for score in scores.scores} == {3}
        assert {len(scores.get(view.name).without) for view in VIEWS} == {4}  # test groups


def test_the_bound_differs_from_the_floor_by_what_the_autoencoder_costs(floor, monkeypatch):
    reals, bound = floor.scores
    assert bound.get("kid") != reals.get("kid")
    assert bound.get("critic_gap") == reals.get("critic_gap")  # of latents: a perfect model's
    sources = some_sources()
    images = iter(sources.images("train", 18).reshape(3, 6, 32, 32, 3))
    monkeypatch.setattr(sources.codec, "decode", lambda _: next(images))
    lossless = measure(sources).scores[1]
    for view in VIEWS:
        assert lossless.get(view.name) == reals.get(view.name)


def test_reals_are_the_held_out_images_with_their_groups_and_variants():
    sources = some_sources()
    reals = make_reals(sources)
    for split, part, count in (("tune", reals.tune, 6), ("test", reals.test, 8)):
        assert len(part.images) == len(part.features) == count
        assert np.array_equal(part.images, sources.images(split))
        rows = draw_rows(sources.dataset, split, sources.stream(split))
        assert part.groups == [GROUPS[row] for row in rows]
        assert part.latent_statistics.shape[:2] == part.image_statistics.shape[:2] == (2, count)
        plain = image_statistics(sources.dataset.images[rows], CPU)
        torch.testing.assert_close(part.image_statistics[0], plain)
    assert reals.test.labels is None


def test_at_most_num_reals_of_each_split_are_compared_with_and_they_are_the_first_drawn():
    sources = some_sources(classes=True)
    reals, few = (
        make_reals(replace(sources, params=evaluate_params(num_reals=n))) for n in (None, 6)
    )
    assert [len(one.images) for one in (reals.test, reals.tune, few.test, few.tune)] == [8, 6, 6, 6]
    assert few.test.groups == reals.test.groups[:6]
    assert torch.equal(few.test.features, sources.features(few.test.images))
    assert torch.equal(few.test.latent_statistics, reals.test.latent_statistics[:, :6])
    assert torch.equal(few.test.labels, reals.test.labels[:6])
    assert torch.equal(few.latents, reals.latents[:6])


def test_latents_of_the_reals_are_those_of_the_same_images_as_they_are():
    sources = some_sources()
    of_test = sources.dataset.rows("test").tolist()
    places = [of_test.index(row) for row in sources.rows("test")]
    assert torch.equal(make_reals(sources).latents, sources.test[places])


@pytest.mark.parametrize(("wanted", "count"), [(6, 6), (50, 8)])
def test_every_set_is_as_large_as_the_training_images_allow_for_each_seed(wanted, count):
    """24 training images make three sets of eight."""
    sources = some_sources()
    sources = replace(sources, params=evaluate_params(num_samples=wanted))
    assert make_reals(sources).count == count
    floor = measure(sources)
    assert {len(one.images) for one in (*floor.clean, *floor.bound)} == {count}


def test_classes_are_those_of_the_images_that_were_drawn():
    sources = some_sources(classes=True)
    for scores in measure(sources).scores:
        assert len(scores.get("class_kid").values) == 3
    grey = np.zeros_like(sources.dataset.images)
    grey[np.array(sources.dataset.classes) == "b"] = 255
    sources = replace(sources, dataset=replace(sources.dataset, images=grey))
    for split, count in (("train", 18), ("test", None)):
        labels, images = sources.labels(split, count), sources.images(split, count)
        assert labels.tolist() == (images[:, 0, 0, 0] // 255).tolist()
    assert torch.equal(make_reals(sources).test.labels, sources.labels("test"))


def test_sets_of_one_group_of_training_images_are_judged_all_the_same():
    sources = some_sources()
    alone = [g if s != "train" else "one" for g, s in zip(GROUPS, SPLITS, strict=True)]
    floor = measure(replace(sources, dataset=replace(sources.dataset, groups=alone)))
    assert {group for one in floor.clean for group in one.groups} == {"one"}
    assert all(np.isfinite(floor.scores[0].get("critic_gap").values))


def test_critics_of_the_floor_know_the_group_of_each_training_image():
    """Images that are row numbers say whose groups the critics were given."""
    sources = some_sources()
    numbered = np.broadcast_to(np.arange(38)[:, None, None, None], (38, 32, 32, 3)).astype(np.uint8)
    floor = measure(replace(sources, dataset=replace(sources.dataset, images=numbered)))
    for one in floor.clean:
        assert list(one.groups) == [GROUPS[image[0, 0, 0]] for image in one.images]
    assert len({image[0, 0, 0] for one in floor.clean for image in one.images}) == 18


ALIKE = replace(some_sources().dataset, groups=["one"] * 37 + ["two"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"dataset": ALIKE, "params": evaluate_params(num_reals=6)},
            r"evaluate\.num_reals=6 draws a set which has \d images of one and [01] of other",
        ),
        ({"params": evaluate_params(num_seeds=5)}, "a set of 4 images is too small, 6 are needed"),
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

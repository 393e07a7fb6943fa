"""The evaluation-only reals: their file, and the refusal of copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advloop.core.errors import UserError
from advloop.evaluation.reals import Reals, load_reals, nearest_training, save_reals
from advloop.evaluation.views import RealSet

GROUPS = ["a", "a", "a", "b", "b", "b", "c", "c"]
LATENTS = torch.arange(8.0).reshape(8, 1, 1, 1)


def some_set(seed: int, labels: torch.Tensor | None = None) -> RealSet:
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (8, 4, 4, 3), generator=stream, dtype=torch.uint8).numpy()
    features, latents, pixels = (
        torch.randn(*shape, generator=stream) for shape in ((8, 5), (2, 8, 6), (2, 8, 7))
    )
    return RealSet(images, features, GROUPS, latents, pixels, labels)


def some_reals(labels: torch.Tensor | None = None) -> Reals:
    return Reals(some_set(0, labels), some_set(1), count=6, latents=LATENTS, nearest=1.5)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1] * 4)])
def test_reals_come_back_as_they_were_written(tmp_path, labels):
    reals = some_reals(labels)
    save_reals(tmp_path / "reals.pt", reals)
    again = load_reals(tmp_path / "reals.pt")
    assert (again.count, again.nearest) == (6, 1.5)
    assert torch.equal(again.latents, reals.latents)
    for ours, theirs in ((again.test, reals.test), (again.tune, reals.tune)):
        assert np.array_equal(ours.images, theirs.images)
        assert ours.groups == theirs.groups
        for name in ("features", "latent_statistics", "image_statistics"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert again.test.labels is None if labels is None else torch.equal(again.test.labels, labels)
    assert again.tune.labels is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("features", torch.zeros(7, 5), "8 images of test, but 7 rows"),
        ("latent_statistics", torch.zeros(8, 6), "its latent_statistics of test are not float32"),
        ("images", torch.zeros(8, 4, 4, 3), "its images of test are not"),
        ("groups", [1] * 8, "its groups of test have no names"),
        ("labels", torch.zeros(7, dtype=torch.int64), "its labels of test are not"),
        ("latents", LATENTS[:7], "its latents are not (N, C, H, W) float32 of 8 images"),
    ],
)
def test_damaged_reals_are_refused_in_one_line(tmp_path, name, value, says):
    path = tmp_path / "reals.pt"
    save_reals(path, some_reals())
    content = torch.load(path, weights_only=True)
    (content if name == "latents" else content["test"])[name] = value
    torch.save(content, path)
    with pytest.raises(UserError, match=r"reals\.pt: not a set of evaluation reals") as caught:
        load_reals(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("copies", [3, 4, 5])  # of 8, whose median is the fourth smallest
def test_copies_of_training_images_are_refused_from_half_of_them_on(copies):
    stream = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 4, 8, 8, generator=stream) for n in (20, 8))
    test[:copies] = train[:copies] + 1e-5
    if copies < 4:
        expected = torch.cdist(test.flatten(1), train.flatten(1)).amin(1).median()
        assert nearest_training(test, train, 6) == pytest.approx(float(expected))
    else:
        with pytest.raises(UserError, match=r"data\.source: at least half .* are copies"):
            nearest_training(test, train, 6)

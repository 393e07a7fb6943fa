"""Labels of latents and of samples follow from the classes of the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from refusal import refusal

from advloop.data.classes import Classes, label_latents, load_classes, save_classes
from advloop.data.dataset import Dataset
from advloop.data.shares import apportion

TWO = Classes(
    ("day", "night"),
    {name: torch.tensor([0] * 30 + [1] * 10) for name in ("train", "val", "test")},
)


@pytest.mark.parametrize("count", [0, 1, 7, 39, 40, 600])
def test_shares_add_up_and_differ_from_the_exact_ones_by_less_than_one(count):
    weights = [23, 10, 0, 7]
    shares = apportion(count, weights)
    assert sum(shares) == count
    assert all(abs(s - count * w / 40) < 1 for s, w in zip(shares, weights, strict=True))
    assert shares[2] == 0
    assert count > 40 or all(s <= w for s, w in zip(shares, weights, strict=True))


def test_variants_of_an_image_have_its_label(tmp_path):
    splits = ["train", "val", "train", "test", "train"]
    names = ["b", "b", "a", "a", "c"]
    dataset = Dataset(np.zeros((5, 1, 1, 3), np.uint8), names, names, splits, names)
    save_classes(tmp_path, label_latents(dataset, {"train": 6, "val": 1, "test": 2}))
    loaded = load_classes(tmp_path)
    assert loaded.names == ("a", "b", "c")
    labels = {split: values.tolist() for split, values in loaded.labels.items()}
    assert labels == {"train": [1, 0, 2, 1, 0, 2], "val": [1], "test": [0, 0]}
    assert load_classes(tmp_path / "elsewhere") is None


def test_labels_that_do_not_fit_the_latents_or_the_names_are_refused(tmp_path):
    message = refusal(TWO.labels_of, "train", torch.zeros(41, 1, 2, 2))
    assert "40 labels of train for 41 latents" in message
    assert TWO.to_labels(["night", "day"], tmp_path).tolist() == [1, 0]
    message = refusal(TWO.to_labels, ["day", "dusk"], tmp_path)
    assert message.startswith(f"{tmp_path}: unknown class dusk")


DAMAGE = {
    "twice": {"names": ["a", "a"]},
    "one": {"names": ["a"]},
    "no test": {"labels": {"train": torch.tensor([0]), "val": torch.tensor([0])}},
    "unknown class": {"labels": {split: torch.tensor([0, 2]) for split in TWO.labels}},
    "floats": {"labels": {split: torch.zeros(2) for split in TWO.labels}},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_labels_are_one_line(tmp_path, damage):
    good = {"names": ["a", "b"], "labels": dict(TWO.labels)}
    torch.save(good | damage, tmp_path / "classes.pt")
    message = refusal(load_classes, tmp_path)
    assert message.startswith(f"{tmp_path / 'classes.pt'}: not a set of classes")


def test_fakes_have_the_training_sets_shares_of_classes_in_an_order_of_each_iteration():
    first, again, later = (TWO.fake_labels(100, 0, i) for i in (0, 0, 1))
    assert torch.bincount(first).tolist() == torch.bincount(later).tolist() == [75, 25]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert len(first[:20].unique()) == 2, "the first fifth validates"

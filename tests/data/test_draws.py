"""Which real images the discriminator sees: never a test image, and none twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from advloop.data.dataset import Dataset
from advloop.data.draws import draw_reals


def make_dataset(splits, classes=()):
    files = [f"{i}.png" for i in range(len(splits))]
    return Dataset(np.zeros((len(splits), 1, 1, 3), np.uint8), files, files, splits, classes)


MIXED = np.random.default_rng(0).permutation(["train"] * 60 + ["val"] * 20 + ["test"] * 30)
DATASET = make_dataset(MIXED.tolist())


@pytest.mark.parametrize("iteration", range(3))
@pytest.mark.parametrize(
    ("num", "train", "val"),
    [(5, 4, 1), (10, 8, 2), (50, 40, 10), (75, 60, 15), (1000, 60, 20)],
)
def test_four_fifths_are_train_images_and_one_fifth_val_images(num, train, val, iteration):
    """None is drawn twice, and none from test; rows ascend."""
    rows = draw_reals(DATASET, num, 0, iteration)
    assert (np.diff(rows) > 0).all()
    assert Counter(DATASET.splits[row] for row in rows) == {"train": train, "val": val}


def test_train_gives_what_a_small_val_split_cannot():
    dataset = make_dataset(["val"] * 4 + ["train"] * 106)
    rows = draw_reals(dataset, 50, 0, 0)
    assert Counter(dataset.splits[row] for row in rows) == {"train": 46, "val": 4}


def test_draw_differs_by_iteration_and_by_seed_and_by_nothing_else():
    keys = [(0, 0), (0, 0), (0, 1), (1, 0), (0, 2)]
    first, again, *others = (draw_reals(DATASET, 40, *key).tolist() for key in keys)
    assert again == first
    assert first not in others


def test_reals_keep_the_shares_of_their_classes_and_are_all_drawn_where_they_are_few():
    splits = (["train"] * 4 + ["val"]) * 40
    names = [("a", "b", "b", "b")[k // 5 % 4] for k in range(200)]
    dataset = make_dataset(splits, names)
    rows = draw_reals(dataset, 100, 0, 0)
    assert Counter((splits[r], names[r]) for r in rows) == {
        ("train", "a"): 20, ("train", "b"): 60, ("val", "a"): 5, ("val", "b"): 15,
    }  # fmt: skip
    assert len(set(draw_reals(dataset, 1000, 0, 0).tolist())) == 200
    assert draw_reals(dataset, 100, 0, 1).tolist() != rows.tolist()

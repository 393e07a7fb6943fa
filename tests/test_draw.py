"""Which real images the discriminator sees: never a test image, never one twice."""

from __future__ import annotations

import numpy as np
import pytest

from advloop.dataset import Dataset
from advloop.draw import draw_reals

COUNTS = {"train": 60, "val": 20, "test": 30}


@pytest.fixture
def dataset() -> Dataset:
    """60 train, 20 val and 30 test images in mixed order."""
    splits = np.random.default_rng(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
    files = [f"{i}.png" for i in range(len(splits))]
    return Dataset(np.zeros((len(splits), 1, 1, 3), np.uint8), files, files, splits.tolist())


def shares(dataset: Dataset, rows: np.ndarray) -> dict[str, int]:
    return {split: sum(dataset.splits[row] == split for row in rows) for split in COUNTS}


@pytest.mark.parametrize("iteration", range(4))
@pytest.mark.parametrize("num", [2, 10, 50, 75, 1000])
def test_no_image_is_drawn_twice_and_no_test_image_at_all(
    dataset: Dataset, num: int, iteration: int
) -> None:
    rows = draw_reals(dataset, num, 0, iteration)
    assert len(rows) > 0
    assert len(set(rows.tolist())) == len(rows)
    assert shares(dataset, rows)["test"] == 0


@pytest.mark.parametrize("num", [5, 10, 50, 75])
def test_four_fifths_come_from_train_and_one_fifth_from_val(dataset: Dataset, num: int) -> None:
    found = shares(dataset, draw_reals(dataset, num, 0, 0))
    assert found == {"train": num * 4 // 5, "val": num // 5, "test": 0}


def test_draw_larger_than_the_data_uses_each_image_once(dataset: Dataset) -> None:
    rows = draw_reals(dataset, 1000, 0, 0)
    assert shares(dataset, rows) == {"train": 60, "val": 20, "test": 0}


def test_train_gives_what_a_small_val_split_cannot(dataset: Dataset) -> None:
    dataset = Dataset(dataset.images, dataset.files, dataset.groups, ["val"] * 4 + ["train"] * 106)
    assert shares(dataset, draw_reals(dataset, 50, 0, 0)) == {"train": 46, "val": 4, "test": 0}


def test_rows_ascend(dataset: Dataset) -> None:
    rows = draw_reals(dataset, 50, 0, 0)
    assert (np.diff(rows) > 0).all()


def test_draw_differs_by_iteration_and_by_seed_and_by_nothing_else(dataset: Dataset) -> None:
    first = draw_reals(dataset, 40, 0, 0).tolist()
    draws = [draw_reals(dataset, 40, *key).tolist() for key in ((0, 1), (1, 0), (0, 2))]
    assert all(draw != first for draw in draws)
    assert draw_reals(dataset, 40, 0, 0).tolist() == first

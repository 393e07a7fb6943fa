"""Which images a stage draws: reals for the discriminator, and collections for the evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from advloop.core.random import generator
from advloop.data.augmentation import augment_at_random
from advloop.data.dataset import Dataset
from advloop.data.latents import Gathered
from advloop.data.shares import apportion, count_reals


def draw_reals(dataset: Dataset, num: int, seed: int, iteration: int) -> npt.NDArray[np.int64]:
    """Ascending rows of ``num`` images without repetition: 80 % from train, 20 % from val.

    If val has fewer images than its share, train fills the gap; if train has too few, all of
    them are used once. Test images are never drawn. If the images have classes, each keeps its
    share of both splits.
    """
    train, val = dataset.rows("train"), dataset.rows("val")
    from_train, from_val = count_reals(num, len(train), len(val))
    chosen = []
    for split, rows, count in (("val", val, from_val), ("train", train, from_train)):
        if dataset.classes:
            chosen += _draw_shares(dataset, rows, count, seed, iteration, split)
            continue
        order = torch.randperm(len(rows), generator=generator(seed, "encode", iteration, split))
        chosen.append(rows[order[:count].numpy()])
    return np.sort(np.concatenate(chosen))


def _draw_shares(
    dataset: Dataset, rows: npt.NDArray[np.int64], count: int, seed: int, iteration: int, split: str
) -> list[npt.NDArray[np.int64]]:
    """``count`` of the rows, divided among the classes in proportion to their sizes."""
    names_of_rows = np.array(dataset.classes)[rows]
    names, sizes = np.unique(names_of_rows, return_counts=True)
    chosen = []
    for name, share in zip(names, apportion(count, sizes.tolist()), strict=True):
        own = rows[names_of_rows == name]
        stream = generator(seed, "encode", iteration, split, str(name))
        chosen.append(own[torch.randperm(len(own), generator=stream)[:share].numpy()])
    return chosen


def gather_reals(
    dataset: Dataset, rows: npt.NDArray[np.int64], train: torch.Tensor, val: torch.Tensor
) -> Gathered:
    """The latents of the images ``rows`` (N,), which are of train or val, as they are.

    train, val: latents (M, C, H, W), variant by variant, the images as they are first.
    """
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    places = []
    for split, latents in (("train", train), ("val", val)):
        own = np.isin(rows, of_split := dataset.rows(split))
        parts.append((latents, torch.from_numpy(np.searchsorted(of_split, rows[own]))))
        places.append(np.flatnonzero(own))
    order = torch.from_numpy(np.concatenate(places)).argsort()
    return Gathered([(Gathered(parts), order)])


def draw_images(
    dataset: Dataset,
    split: str,
    augmentation: str,
    stream: torch.Generator,
    count: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Images (N, S, S, 3) of a split, each in a random variant of the augmentation.

    count: how many, None for all. Their order is random, because a manifest is sorted: parts of
    it, as sampling seeds take them, would be different collections.
    """
    rows = draw_rows(dataset, split, stream, count)
    return augment_at_random(dataset.images[rows], augmentation, stream)


def draw_rows(
    dataset: Dataset, split: str, stream: torch.Generator, count: int | None = None
) -> npt.NDArray[np.int64]:
    """The rows that ``draw_images`` draws from a stream in the same state."""
    rows = dataset.rows(split)
    chosen: npt.NDArray[np.int64] = rows[
        torch.randperm(len(rows), generator=stream)[:count].numpy()
    ]
    return chosen

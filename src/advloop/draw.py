"""Which real images one iteration shows to the discriminator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from advloop.classes import apportion
from advloop.core.runtime import generator
from advloop.dataset import Dataset

VAL_SHARE = 0.2  # of the drawn images: the discriminator's 80/20 split


def draw_reals(dataset: Dataset, num: int, seed: int, iteration: int) -> npt.NDArray[np.int64]:
    """Rows of ``num`` images without repetition, 80 % from train and 20 % from val groups.

    Where val has fewer images than its share, train gives more; where train has too few,
    every one is used once. Test images never are. The draw is keyed by (seed, iteration).
    Rows ascend. Where images have classes, each has its share of either split.
    """
    from_val = min(round(num * VAL_SHARE), len(dataset.rows("val")))
    chosen = []
    for split, count in (("val", from_val), ("train", num - from_val)):
        rows = dataset.rows(split)
        if dataset.classes:
            chosen += _draw_shares(dataset, rows, min(count, len(rows)), seed, iteration, split)
            continue
        order = torch.randperm(len(rows), generator=generator(seed, "encode", iteration, split))
        chosen.append(rows[order[:count].numpy()])
    return np.sort(np.concatenate(chosen))


def _draw_shares(
    dataset: Dataset, rows: npt.NDArray[np.int64], count: int, seed: int, iteration: int, split: str
) -> list[npt.NDArray[np.int64]]:
    """``count`` of the rows, at most all, so that every class gives its share of them."""
    label = np.array(dataset.classes)[rows]
    names, sizes = np.unique(label, return_counts=True)
    chosen = []
    for name, share in zip(names, apportion(count, sizes.tolist()), strict=True):
        own = rows[label == name]
        stream = generator(seed, "encode", iteration, split, str(name))
        chosen.append(own[torch.randperm(len(own), generator=stream)[:share].numpy()])
    return chosen

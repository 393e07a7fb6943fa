"""Which real images one iteration shows to the discriminator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from advloop.dataset import Dataset
from advloop.runtime import generator

VAL_SHARE = 0.2  # of the drawn images: the discriminator's 80/20 split


def draw_reals(dataset: Dataset, num: int, seed: int, iteration: int) -> npt.NDArray[np.int64]:
    """Rows of ``num`` images without repetition, 80 % from train and 20 % from val groups.

    Where val has fewer images than its share, train gives more; where train has too few,
    every one is used once. Test images never are. The draw is keyed by (seed, iteration).
    Rows ascend.
    """
    from_val = min(round(num * VAL_SHARE), len(dataset.rows("val")))
    chosen = []
    for split, count in (("val", from_val), ("train", num - from_val)):
        rows = dataset.rows(split)
        order = torch.randperm(len(rows), generator=generator(seed, "encode", iteration, split))
        chosen.append(rows[order[:count].numpy()])
    return np.sort(np.concatenate(chosen))

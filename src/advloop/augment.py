"""The symmetries that an image may be shown in without leaving its distribution."""

from __future__ import annotations

import torch

VARIANTS = {"none": 1, "hflip": 2, "dihedral": 8}


def augment(pixels: torch.Tensor, variant: int) -> torch.Tensor:
    """Variant 0 is the identity, odd ones mirror, 2-7 also turn by quarter turns.

    pixels: (B, C, S, S). ``VARIANTS[name]`` variants belong to each augmentation.
    """
    turned = torch.rot90(pixels, variant // 2, (2, 3))
    return turned.flip(3) if variant % 2 else turned

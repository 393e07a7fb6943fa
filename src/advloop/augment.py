"""The symmetries that an image may be shown in without leaving its distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

VARIANTS = {"none": 1, "hflip": 2, "dihedral": 8}


def augment(pixels: torch.Tensor, variant: int) -> torch.Tensor:
    """Variant 0 is the identity, odd ones mirror, 2-7 also turn by quarter turns.

    pixels: (B, C, S, S). ``VARIANTS[name]`` variants belong to each augmentation.
    """
    rotated = torch.rot90(pixels, variant // 2, (2, 3))
    return rotated.flip(3) if variant % 2 else rotated


def turned(images: npt.NDArray[np.uint8], variant: int) -> npt.NDArray[np.uint8]:
    """``augment`` for images (N, S, S, 3), whose bytes move and are never converted."""
    if variant == 0:
        return images
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return augment(pixels, variant).permute(0, 2, 3, 1).contiguous().numpy()


def augment_at_random(
    images: npt.NDArray[np.uint8], augmentation: str, stream: torch.Generator
) -> npt.NDArray[np.uint8]:
    """Every image of (N, S, S, 3) in one variant of the augmentation, drawn from ``stream``."""
    drawn = torch.randint(VARIANTS[augmentation], (len(images),), generator=stream)
    result = np.empty_like(images)
    for variant in range(VARIANTS[augmentation]):
        rows = (drawn == variant).numpy()
        result[rows] = turned(images[rows], variant)
    return result

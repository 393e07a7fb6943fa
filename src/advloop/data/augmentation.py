"""Augmentation: the symmetries of a square that make variants of an image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from advloop.params.data import VARIANTS


def augment(pixels: torch.Tensor, variant: int) -> torch.Tensor:
    """Pixels (B, C, S, S) in one variant, counted from 0.

    Variant k is turned by k // 2 quarter turns, and mirrored if k is odd; 0 is the identity.
    """
    rotated = torch.rot90(pixels, variant // 2, (2, 3))
    return rotated.flip(3) if variant % 2 else rotated


def augment_images(images: npt.NDArray[np.uint8], variant: int) -> npt.NDArray[np.uint8]:
    """``augment`` for images (N, S, S, 3) uint8."""
    if variant == 0:
        return images
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return augment(pixels, variant).permute(0, 2, 3, 1).contiguous().numpy()


def augment_at_random(
    images: npt.NDArray[np.uint8], augmentation: str, stream: torch.Generator
) -> npt.NDArray[np.uint8]:
    """Every image of (N, S, S, 3) in a variant of its own, drawn from ``stream``."""
    variants = torch.randint(VARIANTS[augmentation], (len(images),), generator=stream)
    result = np.empty_like(images)
    for variant in range(VARIANTS[augmentation]):
        rows = (variants == variant).numpy()
        result[rows] = augment_images(images[rows], variant)
    return result

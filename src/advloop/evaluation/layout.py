"""The layout view: whole images, so small that no texture is left."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Images = npt.NDArray[np.uint8]

SIDE = 16  # pixels


def thumbnails(images: Images) -> torch.Tensor:
    """Images (N, S, S, 3) averaged to SIDE pixels a side, (N, 3 * SIDE^2) float64 in [0, 1]."""
    pixels = torch.from_numpy(np.array(images)).movedim(3, 1).double() / 255
    return F.adaptive_avg_pool2d(pixels, SIDE).flatten(1)


def energy_distance(fake: torch.Tensor, real: torch.Tensor) -> float:
    """Unbiased 2 E|x - y| - E|x - x'| - E|y - y'| (Székely & Rizzo 2013).

    fake: (M, D), real: (N, D), M and N at least 2. Zero in the mean for equal distributions.
    """
    n, m = len(fake), len(real)
    across = torch.cdist(fake, real).mean()
    within_fake = torch.cdist(fake, fake).sum() / (n * (n - 1))
    within_real = torch.cdist(real, real).sum() / (m * (m - 1))
    return float(2 * across - within_fake - within_real)


def layout_distance(images: Images, real: Images) -> float:
    """``energy_distance`` of thumbnails, times 1000."""
    return 1000 * energy_distance(thumbnails(images), thumbnails(real))

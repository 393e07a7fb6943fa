"""The layout view: whole images, so small that no texture is left."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from advloop.evaluation.kernels import Measured, discrepancy
from advloop.evaluation.scores import Metric

Images = npt.NDArray[np.uint8]

LAYOUT = Metric("layout", "layout", better="lower", listed="table")
SIDE = 16  # pixels
SCALE = 1000.0


def thumbnails(images: Images) -> torch.Tensor:
    """Images (N, S, S, 3) averaged to SIDE pixels a side, (N, 3 * SIDE^2) float64 in [0, 1]."""
    pixels = torch.from_numpy(np.array(images)).movedim(3, 1).double() / 255
    return F.adaptive_avg_pool2d(pixels, SIDE).flatten(1)


def energy_distance(
    fake: torch.Tensor, real: torch.Tensor, groups: Sequence[Hashable] = ()
) -> Measured:
    """Unbiased 2 E|x - y| - E|x - x'| - E|y - y'|, × 1000 (Székely & Rizzo 2013).

    fake: (M, D), real: (N, D) of ``groups`` (N,), M and N at least 2. Zero in the mean for equal
    distributions.
    """
    within_fake, across, within_real = (
        -SCALE * torch.cdist(x, y) for x, y in ((fake, fake), (fake, real), (real, real))
    )
    return discrepancy(within_fake, across, within_real, groups)

"""The pixel view: sliced Wasserstein distances between image patches, at several scales.

Without a network: it sees noise, blur, sharpness and colours at each scale, and of the layout only
what fits into a patch of the coarsest.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from advloop.core.random import batches, generator
from advloop.evaluation.kernels import Measured, rows_without
from advloop.evaluation.scores import Metric
from advloop.models.codec import to_pixels

Images = npt.NDArray[np.uint8]

PIXELS = Metric("pixels", "pixels", better="lower", listed="table")
PATCH = 7  # pixels a side
PATCHES = 64  # of each image
DIRECTIONS = 128
COARSEST = 16  # pixels a side of the last level
BATCH = 256  # images at once; bounds memory, changes no value
SCALE = 1000.0  # as Karras et al. print it


def _filter(channels: int, gain: float) -> torch.Tensor:
    """Binomial 5×5 filters, one a channel, (C, 1, 5, 5)."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return gain * (row[:, None] * row).expand(channels, 1, 5, 5)


def halve(x: torch.Tensor) -> torch.Tensor:
    """Half the resolution of x (B, C, S, S) after low-pass filtering."""
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, _filter(x.shape[1], 1.0).to(x), stride=2, groups=x.shape[1])


def double(x: torch.Tensor) -> torch.Tensor:
    """Twice the resolution of x (B, C, S, S), by the same filter between zeros."""
    spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    spread[:, :, ::2, ::2] = x
    padded = F.pad(spread, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, _filter(x.shape[1], 4.0).to(x), groups=x.shape[1])


def pyramid(x: torch.Tensor) -> list[torch.Tensor]:
    """Laplacian pyramid of x (B, C, S, S), fine to coarse (Burt & Adelson 1983).

    Each level is what the next coarser one lacks; the last is the image at COARSEST pixels a side
    or above, and x alone if S is odd or less than twice that.
    """
    levels = []
    while x.shape[2] >= 2 * COARSEST and x.shape[2] % 2 == 0:
        coarser = halve(x)
        levels.append(x - double(coarser))
        x = coarser
    return [*levels, x]


def descriptors(images: Images, stream: torch.Generator) -> list[torch.Tensor]:
    """Random patches (N * PATCHES, 3, PATCH, PATCH) of every level of images (N, S, S, 3)."""
    found: list[list[torch.Tensor]] = []
    for part in batches(len(images), BATCH):
        levels = pyramid(to_pixels(images[part.start : part.stop], torch.device("cpu")))
        found = found or [[] for _ in levels]
        for kept, level in zip(found, levels, strict=True):
            last = level.shape[2] - PATCH + 1
            corners = torch.randint(last, (2, len(level), PATCHES), generator=stream)
            windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
            rows = torch.arange(len(level))[:, None]
            kept.append(windows[rows, :, corners[0], corners[1]].flatten(0, 1))
    return [torch.cat(kept) for kept in found]


class PixelView:
    """Distances of sets of images from one set of real ones (Karras et al. 2018, section 5).

    Patches of both are standardised by the mean and deviation of each channel in the real ones, so
    that a shift of colours counts; Karras et al. use each set's own. The distance of two samples of
    one distribution falls as they grow, so sets that are compared have to be equally large.
    """

    def __init__(self, real: Images, groups: Sequence[Hashable], seed: int) -> None:
        """real: (N, S, S, 3) of ``groups`` (N,), S at least PATCH."""
        self.seed = seed
        self.masks = [mask.repeat_interleave(PATCHES) for mask in rows_without(groups)]
        directions = torch.randn(
            3 * PATCH**2, DIRECTIONS, generator=generator(seed, "swd", "directions")
        )
        self.directions = directions / directions.norm(dim=0)
        self.shifts, self.scales = [], []
        self.sorted: list[tuple[torch.Tensor, torch.Tensor]] = []
        for level in descriptors(real, generator(seed, "swd", "real")):
            self.shifts.append(level.mean((0, 2, 3), keepdim=True))
            self.scales.append(level.std((0, 2, 3), keepdim=True).clamp_min(1e-6))
            values, order = self._project(level, len(self.shifts) - 1).sort(1)
            self.sorted.append((values, order))

    def _project(self, level: torch.Tensor, number: int) -> torch.Tensor:
        """Projections (DIRECTIONS, rows)."""
        values = ((level - self.shifts[number]) / self.scales[number]).flatten(1)
        projected: torch.Tensor = (values @ self.directions).T.contiguous()
        return projected

    def levels(self, images: Images, jackknife: bool = True) -> list[Measured]:
        """The distance of images (M, S, S, 3) at each level, fine to coarse, × 1000.

        jackknife: also without each group of the reals.
        """
        masks = self.masks if jackknife else []
        found = descriptors(images, generator(self.seed, "swd", "images"))
        measured = []
        for number, level in enumerate(found):
            ours = self._project(level, number).sort(1).values
            theirs, order = self.sorted[number]
            parts = (theirs[mask[order]].unflatten(0, (DIRECTIONS, -1)) for mask in masks)
            without = tuple(SCALE * wasserstein(ours, part) for part in parts)
            measured.append(Measured(SCALE * wasserstein(ours, theirs), without))
        return measured


def wasserstein(x: torch.Tensor, y: torch.Tensor) -> float:
    """Mean over directions of the Wasserstein-1 distance of sorted values x (K, M) and y (K, N).

    Of sets of different sizes, the larger is read at the quantiles of the smaller.
    """
    count = min(x.shape[1], y.shape[1])
    return float((_at_quantiles(x, count) - _at_quantiles(y, count)).abs().mean())


def _at_quantiles(values: torch.Tensor, count: int) -> torch.Tensor:
    """Sorted values (K, N) at the middles of ``count`` equal shares, linear in between."""
    size = values.shape[1]
    if size == count:
        return values
    places = (torch.arange(count) + 0.5) * (size / count) - 0.5
    below = places.floor().long().clamp(0, size - 2)
    return torch.lerp(values[:, below], values[:, below + 1], places - below)

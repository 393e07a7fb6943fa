"""Differentiable statistics of latents, and a logit of them: what convolutions alone learn late.

From a few hundred rows, convolutions hardly learn what separates samples from reals, while a small
network on statistics does. Beside a discriminator's convolutions it keeps a generator from fooling
these where they do not look. These statistics belong to the discriminator and are part of what a
run trains on; the evaluation's critics have their own.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

THRESHOLDS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # for latents with mean square 1
SHARPNESS = 4.0  # of the soft histogram: a step of a quarter's width keeps a gradient at its sides
COARSEST = 8  # cells a side below which a latent is not halved again
QUADRANTS = 2  # a side, whose means tell of the layout
HIDDEN = 64  # units of the network on the statistics
OUTLIER = 5.0  # standard deviations that a statistic approaches and never exceeds
BATCH = 256  # latents at once in a measurement; bounds memory


def statistics_of(latents: torch.Tensor) -> torch.Tensor:
    """Statistics (B, D) float32 of latents (B, C, H, W), differentiable in them.

    The means of the four quadrants. Then, at each resolution from the full one down to COARSEST
    cells a side: mean, soft histogram and mean difference of neighbours of each channel, and the
    mean products of every two channels and of their magnitudes. D is ``statistics_count``.
    """
    with torch.autocast(latents.device.type, enabled=False):  # products lose much in bfloat16
        x = latents.float()
        found = [F.adaptive_avg_pool2d(x, QUADRANTS).flatten(1), *_level(x)]
        while min(x.shape[2:]) >= 2 * COARSEST:
            x = F.avg_pool2d(x, 2)
            found += _level(x)
        return torch.cat(found, 1)


def _level(x: torch.Tensor) -> list[torch.Tensor]:
    maps = [x, *(torch.sigmoid(SHARPNESS * (x - t)) for t in THRESHOLDS)]
    maps += [x.diff(dim=side).abs() for side in (2, 3)]
    return [*(values.mean((2, 3)) for values in maps), _products(x), _products(x.abs())]


def _products(x: torch.Tensor) -> torch.Tensor:
    """Mean products (B, C (C + 1) / 2) of every two channels of x (B, C, H, W)."""
    cells = x.flatten(2)
    first, second = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return ((cells @ cells.mT) / cells.shape[2])[:, first, second]


def statistics_count(channels: int, size: int) -> int:
    """D of latents (channels, size, size), size at least 2: 496 for (16, 8, 8)."""
    return int(statistics_of(torch.zeros(1, channels, size, size)).shape[1])


class StatisticsHead(nn.Module):
    """A small network from statistics (B, D) to a logit (B,).

    It standardises them by ``shift`` and ``scale``, which are part of its weights and are measured
    once, on what it is trained on. A tanh bounds outliers: unlike a clamp, it leaves each of them
    a gradient.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        count = statistics_count(channels, size)
        self.register_buffer("shift", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.network = nn.Sequential(
            nn.Linear(count, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1)
        )

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        standard = OUTLIER * torch.tanh((statistics - self.shift) / self.scale / OUTLIER)
        logits: torch.Tensor = self.network(standard).squeeze(1)
        return logits

    @torch.no_grad()
    def measure(self, statistics: torch.Tensor) -> None:
        """Standardise by the mean and deviation of statistics (N, D)."""
        self.shift.copy_(statistics.mean(0))
        self.scale.copy_(statistics.std(0, correction=0).clamp_min(1e-6))

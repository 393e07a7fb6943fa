"""Nearest neighbours between two sets: for fidelity, diversity and memorisation."""

from __future__ import annotations

import torch

from advloop.evaluation.scores import Metric
from advloop.params.evaluation import NEIGHBOURS

PRECISION = Metric("precision", "precision", better="higher")
DENSITY = Metric("density", "density", better="higher")
RECALL = Metric("recall", "recall", better="higher")
COVERAGE = Metric("coverage", "coverage", better="higher")


def radii(x: torch.Tensor) -> torch.Tensor:
    """Distance from each row of x (N, D) to its fifth nearest other row; N at least MIN_IMAGES."""
    distances: torch.Tensor = torch.cdist(x, x).fill_diagonal_(0)
    return distances.kthvalue(NEIGHBOURS + 1, dim=1).values


def _in_real(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(M, N): whether fake m lies in the ball around real n that reaches its fifth neighbour."""
    return torch.cdist(fake.double(), real.double()) <= radii(real.double())


def _in_fake(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(M, N): whether real n lies in the ball around fake m."""
    return torch.cdist(fake.double(), real.double()) <= radii(fake.double())[:, None]


def precision(fake: torch.Tensor, real: torch.Tensor) -> float:
    """Share of fakes (M, D) inside some real's ball, k = 5 (Kynkäänniemi et al. 2019, Eq. 1-3)."""
    return float(_in_real(fake, real).any(1).double().mean())


def recall(fake: torch.Tensor, real: torch.Tensor) -> float:
    """Share of reals (N, D) inside some fake's ball, k = 5 (Kynkäänniemi et al. 2019, Eq. 1-3)."""
    return float(_in_fake(fake, real).any(0).double().mean())


def density(fake: torch.Tensor, real: torch.Tensor) -> float:
    """Mean number of reals' balls over a fake, by k; may exceed 1 (Naeem et al. 2020, Eq. 3)."""
    return float(_in_real(fake, real).double().sum(1).mean() / NEIGHBOURS)


def coverage(fake: torch.Tensor, real: torch.Tensor) -> float:
    """Share of reals whose ball holds a fake, k = 5 (Naeem et al. 2020, Eq. 4)."""
    return float(_in_real(fake, real).any(0).double().mean())


COMPUTE = {PRECISION: precision, DENSITY: density, RECALL: recall, COVERAGE: coverage}


def nearest_rows(
    x: torch.Tensor, others: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest of others (M, …) to each row of x (N, …).

    Returns the Euclidean distances (N,), and the indices (N,) int64 in [0, M), the first if tied.
    """
    rows = x.flatten(1)
    nearest = torch.full((len(rows),), torch.inf, device=rows.device)
    found = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    for index, part in enumerate(others.flatten(1).split(batch_size)):
        distances, places = torch.cdist(rows, part.to(rows.device)).min(1)
        closer = distances < nearest
        nearest = torch.where(closer, distances, nearest)
        found = torch.where(closer, places + index * batch_size, found)
    return nearest, found

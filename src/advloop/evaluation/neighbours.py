"""Nearest neighbours between two sets: fidelity, diversity and memorisation."""

from __future__ import annotations

import torch

from advloop.params.evaluation import NEIGHBOURS


def radii(x: torch.Tensor) -> torch.Tensor:
    """Distance of each row of x (N, D), N at least MIN_IMAGES, to its fifth nearest other row."""
    distances: torch.Tensor = torch.cdist(x, x).fill_diagonal_(0)
    return distances.kthvalue(NEIGHBOURS + 1, dim=1).values


def neighbour_scores(fake: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Precision, recall, density and coverage of features fake (M, D) and real (N, D), k = 5.

    A ball around each row reaches its fifth nearest neighbour of the same set. precision:
    share of fakes inside some real's ball; recall: share of reals inside some fake's
    (Kynkäänniemi et al. 2019, Eq. 1-3). density: how many reals' balls a fake lies in, over
    k, which may exceed 1; coverage: share of reals whose ball holds a fake (Naeem et al.
    2020, Eq. 3 and 4).
    """
    fake, real = fake.double(), real.double()
    distances = torch.cdist(fake, real)
    in_real = distances <= radii(real)
    in_fake = distances <= radii(fake)[:, None]
    return {
        "precision": float(in_real.any(1).double().mean()),
        "recall": float(in_fake.any(0).double().mean()),
        "density": float(in_real.double().sum(1).mean() / NEIGHBOURS),
        "coverage": float(in_real.any(0).double().mean()),
    }


def nearest_rows(
    x: torch.Tensor, others: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Euclidean distance (N,) of each row of x (N, …) to the nearest of others (M, …).

    And which one that is, (N,) int64 in [0, M): of equally near ones the first.
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


def nearest_distances(x: torch.Tensor, others: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The distances of ``nearest_rows``."""
    return nearest_rows(x, others, batch_size)[0]

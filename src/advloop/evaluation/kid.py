"""Kernel inception distance between two sets of features."""

from __future__ import annotations

import torch

from advloop.evaluation.scores import Metric

KID = Metric("kid", "KID", better="lower", listed="table")


def _kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(fake: torch.Tensor, real: torch.Tensor) -> float:
    """Unbiased squared MMD with the cubic polynomial kernel (Binkowski et al. 2018, Eq. 4).

    fake: (M, D), real: (N, D), M and N at least 2. Its expectation is 0 for equal distributions,
    so single values may be negative.
    """
    x, y = fake.double(), real.double()
    n, m = len(x), len(y)
    within_x, within_y = _kernel(x, x), _kernel(y, y)
    first = (within_x.sum() - within_x.diagonal().sum()) / (n * (n - 1))
    second = (within_y.sum() - within_y.diagonal().sum()) / (m * (m - 1))
    return float(first + second - 2 * _kernel(x, y).mean())


COMPUTE = {KID: kernel_distance}

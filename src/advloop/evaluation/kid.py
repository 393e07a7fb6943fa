"""Kernel inception distance between two sets of features."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from advloop.evaluation.kernels import Measured, discrepancy
from advloop.evaluation.scores import Metric

KID = Metric("kid", "KID", better="lower", listed="table")
SCALE = 1000.0  # as it is usually printed


def _kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(
    fake: torch.Tensor, real: torch.Tensor, groups: Sequence[Hashable] = ()
) -> Measured:
    """Unbiased squared MMD with the cubic polynomial kernel, × 1000 (Binkowski et al. 2018, Eq. 4).

    fake: (M, D), real: (N, D) of ``groups`` (N,), M and N at least 2. Its expectation is 0 for
    equal distributions, so single values may be negative.
    """
    x, y = fake.double(), real.double()
    return discrepancy(SCALE * _kernel(x, x), SCALE * _kernel(x, y), SCALE * _kernel(y, y), groups)

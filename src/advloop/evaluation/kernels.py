"""Distances between two sets, by the mean of a kernel within and across them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch


@dataclass(frozen=True)
class Measured:
    """A figure of a set of samples against reals, and without each group of the reals in turn.

    without: one value a group, in the order in which groups first appear. Their spread shows how
    much the figure depends on which groups the reals happen to hold (delete-a-group jackknife).
    """

    value: float
    without: tuple[float, ...] = ()


def mean_of(measured: Sequence[Measured]) -> Measured:
    """The mean of figures against the same reals, also without each of their groups."""
    without = zip(*(one.without for one in measured), strict=True)
    return Measured(fmean(one.value for one in measured), tuple(map(fmean, without)))


def rows_without(groups: Sequence[Hashable]) -> list[torch.Tensor]:
    """For each group, a mask (N,) of the rows of all others."""
    return [
        torch.tensor([other != group for other in groups])
        for group in dict.fromkeys(groups)  # in the order of their first rows
    ]


def _mean_within(kernel: torch.Tensor) -> torch.Tensor:
    """Mean of kernel (N, N) over pairs of different rows."""
    return (kernel.sum() - kernel.diagonal().sum()) / (len(kernel) * (len(kernel) - 1))


def discrepancy(
    within_fake: torch.Tensor,
    across: torch.Tensor,
    within_real: torch.Tensor,
    groups: Sequence[Hashable] = (),
) -> Measured:
    """Unbiased E k(x, x') + E k(y, y') - 2 E k(x, y) from kernels (M, M), (M, N) and (N, N).

    groups: of the reals, (N,); each must leave at least two reals of others.
    """
    fake = _mean_within(within_fake)

    def value(real: torch.Tensor, pairs: torch.Tensor) -> float:
        return float(fake + _mean_within(real) - 2 * pairs.mean())

    return Measured(
        value(within_real, across),
        tuple(value(within_real[kept][:, kept], across[:, kept]) for kept in rows_without(groups)),
    )

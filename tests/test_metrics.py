"""Every metric in every set of samples, with its interval and the name of its features."""

from __future__ import annotations

import pytest
import torch

from advloop.errors import UserError
from advloop.intervals import mean_and_interval
from advloop.kid import kernel_distance
from advloop.metrics import measure


def draws(*sizes: int) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    return [torch.randn(size, 8, generator=stream) for size in sizes]


def test_each_figure_is_the_mean_over_the_sets_beside_its_interval():
    *samples, real = draws(10, 10, 10, 20)
    row = measure(samples, real, "net")
    names = ("kid", "precision", "recall", "density", "coverage")
    assert set(row) == {f"{n}_net{end}" for n in names for end in ("", "_ci95")}
    mean, half = mean_and_interval([kernel_distance(part, real) for part in samples])
    assert (row["kid_net"], row["kid_net_ci95"]) == (mean, half)


@pytest.mark.parametrize("sizes", [(5, 10, 20), (10, 10, 5)])
def test_a_set_that_is_too_small_is_refused(sizes):
    *samples, real = draws(*sizes)
    with pytest.raises(UserError, match=r"a set of 5 images is too small, 6 are needed"):
        measure(samples, real, "net")

"""Kernel inception distance against torchmetrics, and what unbiased means."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from advloop.evaluation.kid import SCALE
from advloop.evaluation.kid import kernel_distance as measured


def features(seed: int, rows: int, columns: int = 8, shift: float = 0.0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=stream) + shift


def kernel_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return measured(x, y).value / SCALE


@pytest.mark.parametrize("columns", [1, 8, 200])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_distance_is_that_of_torchmetrics(columns, shift):
    x, y = features(0, 50, columns).double(), features(1, 50, columns, shift).double()
    assert kernel_distance(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-9, abs=1e-12)


def test_float32_features_are_compared_in_double_precision():
    """At this size of the features float32 sums lose the distance altogether."""
    x, y = 100 + features(0, 50), 100 + features(1, 50)
    exact = float(poly_mmd(x.double(), y.double()))
    assert kernel_distance(x, y) == pytest.approx(exact, rel=1e-6)
    assert float(poly_mmd(x, y)) != pytest.approx(exact, rel=1e-6)


def test_sets_of_two_sizes_are_averaged_over_their_own_pairs():
    x, y = features(0, 5, 3).double(), features(1, 7, 3, shift=0.4).double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = [kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j]
    within_y = [kernel(y[i], y[j]) for i in range(7) for j in range(7) if i != j]
    across = [kernel(a, b) for a in x for b in y]
    expected = sum(within_x) / 20 + sum(within_y) / 42 - 2 * sum(across) / 35
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(y.flip(0), x) == pytest.approx(expected, rel=1e-9)


def test_equal_distributions_have_distance_zero_on_average():
    pairs = [(features(2 * k, 20), features(2 * k + 1, 20)) for k in range(400)]
    values = torch.tensor([kernel_distance(*pair) for pair in pairs], dtype=torch.float64)
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean())) < 3 * error
    assert float(values.min()) < 0 < float(values.max())
    # The biased estimator, with the diagonals left in, would be off by
    # 2 (E k(x, x) - E k(x, y)) / n, more than 3 standard errors: this test could see it.
    x = features(0, 20_000)
    diagonal = float(((x.square().sum(1) / 8 + 1) ** 3).mean())
    across = float(((x[:10_000] * x[10_000:]).sum(1) / 8 + 1).pow(3).mean())
    assert 2 * (diagonal - across) / 20 > 6 * error


def test_the_distance_without_a_group_is_that_of_the_other_reals():
    x, y, groups = features(0, 20), features(1, 9, shift=0.3), list("aabbbcccc")
    found = measured(x, y, groups)
    assert found.value == measured(x, y).value
    kept = [[g != left for g in groups] for left in "abc"]
    assert found.without == pytest.approx([measured(x, y[rows]).value for rows in kept])

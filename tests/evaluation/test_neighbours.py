"""Precision, recall, density, coverage and nearest rows on cases made by hand."""

from __future__ import annotations

import pytest
import torch

from advloop.evaluation.neighbours import (
    coverage,
    density,
    nearest_rows,
    precision,
    radii,
    recall,
)
from advloop.params.evaluation import MIN_IMAGES, NEIGHBOURS


def normal(seed: int, rows: int, columns: int = 16, shift: float = 0.0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=stream) + shift


def test_radius_is_the_distance_to_the_fifth_nearest_other_row():
    line = torch.tensor([[0.0], [1.0], [3.0], [6.0], [10.0], [15.0], [100.0]])
    assert radii(line).tolist() == [15.0, 14.0, 12.0, 9.0, 10.0, 15.0, 99.0]
    assert radii(torch.zeros(MIN_IMAGES, 3)).tolist() == [0.0] * MIN_IMAGES
    with pytest.raises(RuntimeError):
        radii(torch.zeros(NEIGHBOURS, 3))


def test_a_set_against_itself_scores_full_marks_and_sets_far_apart_nothing():
    x, far = normal(0, 50), normal(1, 50, shift=100.0)
    assert precision(x, x) == recall(x, x) == coverage(x, x) == 1.0
    assert [f(x, far) for f in (precision, recall, density, coverage)] == [0.0] * 4


def test_scores_of_a_case_made_by_hand():
    # reals: two clusters of six, side 1; fakes: six in the first cluster, none in the second
    cluster = torch.tensor([[float(i), 0.0] for i in range(6)])
    fake, real = cluster + torch.tensor([0.25, 0.0]), torch.cat([cluster, cluster + 1000])
    assert precision(fake, real) == 1.0
    assert coverage(fake, real) == 0.5  # the second cluster's balls hold no fake
    assert recall(fake, real) == 0.5
    # radii of the reals 0..5 are 5, 4, 3, 3, 4, 5; fakes 0.25 … 5.25 fall into
    # 5 (5.25 is out), 5, 4, 4, 5 and 6 of them: 29 pairs, over k M = 30
    inside = sum(
        abs(i + 0.25 - j) <= radius for i in range(6) for j, radius in enumerate([5, 4, 3, 3, 4, 5])
    )
    assert density(fake, real) == pytest.approx(inside / 30)


def test_equal_distributions_have_density_one_and_the_known_coverage():
    """E[density] = 1; E[coverage] = 1 - (N-1)…(N-k) / (M+N-1)…(M+N-k) (Naeem et al., Eq. 7, 9)."""
    pairs = [(normal(2 * k, 100), normal(2 * k + 1, 100)) for k in range(30)]
    values = [[metric(*pair) for pair in pairs] for metric in (density, coverage)]
    expected = 1.0
    for i in range(1, NEIGHBOURS + 1):
        expected *= (100 - i) / (200 - i)
    means = torch.tensor(values, dtype=torch.float64)
    errors = means.std(1) / 30**0.5
    assert abs(float(means[0].mean()) - 1) < 4 * float(errors[0])
    assert abs(float(means[1].mean()) - (1 - expected)) < 4 * float(errors[1])


def test_nearest_rows_are_the_same_in_any_batch_and_the_first_if_tied():
    x, others = normal(0, 7).view(7, 4, 2, 2), normal(1, 23).view(23, 4, 2, 2)
    others[20] = others[3]
    x[0] = others[3]
    expected = torch.cdist(x.flatten(1), others.flatten(1))
    rows = expected.argmin(1)
    rows[0] = 3
    for size in (1, 5, 23, 100):
        distances, found = nearest_rows(x, others, size)
        torch.testing.assert_close(distances, expected.amin(1), rtol=1e-5, atol=1e-2)
        assert found.tolist() == rows.tolist()

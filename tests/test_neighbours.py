"""Precision, recall, density, coverage and nearest distances on cases made by hand."""

from __future__ import annotations

import pytest
import torch

from advloop.evaluation.neighbours import nearest_distances, nearest_rows, neighbour_scores, radii
from advloop.params.evaluation import MIN_IMAGES, NEIGHBOURS


def normal(seed: int, rows: int, columns: int = 16, shift: float = 0.0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=stream) + shift


def test_radius_is_the_distance_to_the_fifth_nearest_other_row():
    line = torch.tensor([[0.0], [1.0], [3.0], [6.0], [10.0], [15.0], [100.0]])
    assert radii(line).tolist() == [15.0, 14.0, 12.0, 9.0, 10.0, 15.0, 99.0]


def test_rows_that_are_equal_lie_in_one_another_at_radius_zero():
    assert radii(torch.zeros(MIN_IMAGES, 3)).tolist() == [0.0] * MIN_IMAGES


def test_fewer_rows_than_neighbours_are_no_set():
    with pytest.raises(RuntimeError):
        radii(torch.zeros(NEIGHBOURS, 3))


def test_a_set_against_itself_scores_full_marks():
    x = normal(0, 50)
    scores = neighbour_scores(x, x)
    assert scores["precision"] == scores["recall"] == scores["coverage"] == 1.0


def test_sets_far_apart_score_nothing():
    assert set(neighbour_scores(normal(0, 50), normal(1, 50, shift=100.0)).values()) == {0.0}


def test_scores_of_a_case_made_by_hand():
    # reals: two clusters of six, side 1; fakes: six in the first cluster, none in the second
    cluster = torch.tensor([[float(i), 0.0] for i in range(6)])
    real = torch.cat([cluster, cluster + 1000])
    scores = neighbour_scores(cluster + torch.tensor([0.25, 0.0]), real)
    assert scores["precision"] == 1.0
    assert scores["coverage"] == 0.5  # the second cluster's balls hold no fake
    assert scores["recall"] == 0.5
    # radii of the reals 0..5 are 5, 4, 3, 3, 4, 5; fakes 0.25 … 5.25 fall into
    # 5 (5.25 is out), 5, 4, 4, 5 and 6 of them: 29 pairs, over k M = 30
    inside = sum(
        abs(i + 0.25 - j) <= radius for i in range(6) for j, radius in enumerate([5, 4, 3, 3, 4, 5])
    )
    assert scores["density"] == pytest.approx(inside / 30)


def test_collapse_to_one_mode_keeps_precision_and_loses_coverage():
    real = normal(0, 200)
    collapsed = real[:1] + 0.01 * normal(1, 200)
    scores = neighbour_scores(collapsed, real)
    assert scores["precision"] == 1.0
    assert scores["coverage"] < 0.2


def test_equal_distributions_have_density_one_and_the_known_coverage():
    """E[density] = 1; E[coverage] = 1 - (N-1)…(N-k) / (M+N-1)…(M+N-k) (Naeem et al., Eq. 7, 9)."""
    density, coverage = [], []
    for k in range(30):
        scores = neighbour_scores(normal(2 * k, 100), normal(2 * k + 1, 100))
        density.append(scores["density"])
        coverage.append(scores["coverage"])
    expected = 1.0
    for i in range(1, NEIGHBOURS + 1):
        expected *= (100 - i) / (200 - i)
    means = torch.tensor([density, coverage], dtype=torch.float64)
    errors = means.std(1) / 30**0.5
    assert abs(float(means[0].mean()) - 1) < 4 * float(errors[0])
    assert abs(float(means[1].mean()) - (1 - expected)) < 4 * float(errors[1])


def test_nearest_distances_are_the_same_in_any_batch():
    x, others = normal(0, 7).view(7, 4, 2, 2), normal(1, 23).view(23, 4, 2, 2)
    expected = torch.cdist(x.flatten(1), others.flatten(1)).amin(1)
    for size in (1, 5, 23, 100):
        torch.testing.assert_close(nearest_distances(x, others, size), expected)


def test_nearest_rows_are_the_same_in_any_batch_and_the_first_of_equal_ones():
    x, others = normal(0, 7), normal(1, 23)
    others[20] = others[3]
    expected = torch.cdist(x, others).argmin(1)
    x[0] = others[3]
    expected[0] = 3
    for size in (1, 5, 23, 100):
        assert nearest_rows(x, others, size)[1].tolist() == expected.tolist()

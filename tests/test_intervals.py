"""Intervals over a few values, against printed tables and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from advloop.intervals import mean_and_interval, student_t


# Quantiles of Student's t as printed in tables; the expansion is good to a thousandth from 9 on.
@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (8, 2.306), (9, 2.262), (15, 2.131), (30, 2.042)],
)
def test_quantiles_are_those_of_student(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, rel=1e-3)


def test_mean_and_interval_of_a_hand_made_case():
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5)  # standard deviation 1


def test_95_percent_of_the_intervals_of_normal_values_cover_their_mean():
    stream = np.random.default_rng(0)
    covered = 0
    for values in stream.normal(size=(2000, 3)):
        mean, half = mean_and_interval(values.tolist())
        covered += abs(mean) <= half
    # standard error of a share of 0.95 in 2,000 draws: 0.0049
    assert covered / 2000 == pytest.approx(0.95, abs=4 * 0.0049)

"""Confidence intervals over a few independent values."""

from __future__ import annotations

import statistics

Seeds = dict[str, list[float]]
"""Values of each metric, one a sampling seed."""

# two-sided 95 % quantiles of Student's t by degrees of freedom
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def student_t(freedom: int) -> float:
    """Two-sided 95 % quantile; beyond the table by Abramowitz & Stegun 1964, Eq. 26.7.5."""
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return STUDENT_T.get(freedom, z + first + second + third)


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t) over independent values."""
    spread = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), student_t(len(values) - 1) * spread

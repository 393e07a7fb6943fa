"""Every metric in every set of samples, and the row that is made of them."""

from __future__ import annotations

import pytest
import torch

from advloop.core.errors import UserError
from advloop.evaluation import metrics
from advloop.evaluation.kid import kernel_distance
from advloop.evaluation.metrics import describe, make_row, measure
from advloop.intervals import mean_and_interval


def draws(*sizes: int) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    return [torch.randn(size, 8, generator=stream) for size in sizes]


def test_each_figure_has_a_value_a_set_and_only_kid_looks_at_the_tune_images():
    *samples, tune, test = draws(10, 10, 10, 15, 20)
    seeds = measure(samples, {"tune": tune, "test": test}, "net")
    names = ("kid", "precision", "recall", "density", "coverage", "tune_kid")
    assert set(seeds) == {f"{name}_net" for name in names}
    assert seeds["kid_net"] == [kernel_distance(part, test) for part in samples]
    assert seeds["tune_kid_net"] == [kernel_distance(part, tune) for part in samples]


def test_function_that_is_listed_is_a_figure_of_every_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "METRICS", (lambda fake, real: {"ratio": len(fake) / len(real)},))
    *samples, tune, test = draws(10, 10, 10, 15, 20)
    row = make_row(measure(samples, {"tune": tune, "test": test}, "net"))
    assert row["ratio_net"] == 0.5
    assert row["ratio_net_ci95"] == 0


@pytest.mark.parametrize("sizes", [(5, 10, 20, 20), (10, 10, 5, 20), (10, 10, 20, 5)])
def test_a_set_that_is_too_small_is_refused(sizes):
    *samples, tune, test = draws(*sizes)
    with pytest.raises(UserError, match=r"a set of 5 images is too small, 6 are needed"):
        measure(samples, {"tune": tune, "test": test}, "net")


def test_row_has_the_mean_beside_its_interval_and_keeps_the_values():
    row = make_row({"kid": [1.0, 2.0, 4.0]}, loss=0.123456789)
    mean, half = mean_and_interval([1.0, 2.0, 4.0])
    assert (row["kid"], row["kid_ci95"]) == (round(mean, 6), round(half, 6))
    assert row["loss"] == 0.123457
    assert row["seeds"] == {"kid": [1.0, 2.0, 4.0]}


def test_a_row_is_told_in_one_line_with_its_intervals():
    line = describe(make_row({"kid": [1.0, 1.0]}, loss=0.5))
    assert line == "loss=0.5, kid=1.0±0.0"

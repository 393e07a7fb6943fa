"""The other metrics of features, for each set of samples."""

from __future__ import annotations

import pytest
import torch

from advloop.core.errors import UserError
from advloop.evaluation.metrics import METRICS, measure, measure_classes


def features(*sizes: int, width: int = 8) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    return [torch.randn(size, width, generator=stream) for size in sizes]


def test_each_metric_has_a_value_a_set():
    *samples, test = features(10, 10, 10, 20)
    found = measure(samples, test, "net")
    assert [score.metric for score in found] == list(METRICS)
    for score in found:
        compute = METRICS[score.metric]
        assert score.values == tuple(compute(part, test) for part in samples)
        assert (score.split, score.features) == ("test", "net")


@pytest.mark.parametrize("sizes", [(5, 10, 20), (10, 10, 5)])
def test_a_set_that_is_too_small_is_refused(sizes):
    *samples, test = features(*sizes)
    with pytest.raises(UserError, match=r"a set of 5 images is too small, 6 are needed"):
        measure(samples, test, "net")


def test_features_of_two_widths_are_refused():
    (test,) = features(10)
    with pytest.raises(UserError, match="features of 4 and 8 values cannot be compared; remake"):
        measure(features(10, width=4), test, "net")


def test_kid_of_each_class_sees_samples_of_other_classes_than_asked_for():
    stream = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1] * 20)
    centre = torch.where(labels > 0, 3.0, -3.0)[:, None]
    real, right = (torch.randn(40, 8, generator=stream) + centre for _ in range(2))

    def class_kid(samples: torch.Tensor) -> float:
        return measure_classes([samples], [labels], real, labels, "net")[0].values[0]

    assert abs(class_kid(right)) < 0.1 * class_kid(right.roll(1, 0))
    assert measure_classes([right[:2]], [labels[:2]], real, labels, "net") == []  # one of each

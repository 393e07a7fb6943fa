"""Each metric for each set of samples, and which real images it looks at."""

from __future__ import annotations

import pytest
import torch

from advloop.core.errors import UserError
from advloop.evaluation.kid import KID, kernel_distance
from advloop.evaluation.metrics import METRICS, measure, measure_classes


def features(*sizes: int, width: int = 8) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    return [torch.randn(size, width, generator=stream) for size in sizes]


def test_each_metric_has_a_value_a_set_and_only_kid_looks_at_the_tune_images():
    *samples, tune, test = features(10, 10, 10, 15, 20)
    found = measure(samples, {"tune": tune, "test": test}, "net")
    assert [score.name for score in found[:2]] == ["kid_net", "tune_kid_net"]
    assert {(score.metric, score.split) for score in found} == {
        (KID, "tune"),
        *((metric, "test") for metric in METRICS),
    }
    values = {score.name: score.values for score in found}
    assert values["kid_net"] == tuple(kernel_distance(part, test) for part in samples)
    assert values["tune_kid_net"] == tuple(kernel_distance(part, tune) for part in samples)
    assert {len(value) for value in values.values()} == {3}


@pytest.mark.parametrize("sizes", [(5, 10, 20, 20), (10, 10, 5, 20), (10, 10, 20, 5)])
def test_a_set_that_is_too_small_is_refused(sizes):
    *samples, tune, test = features(*sizes)
    with pytest.raises(UserError, match=r"a set of 5 images is too small, 6 are needed"):
        measure(samples, {"tune": tune, "test": test}, "net")


def test_features_of_two_widths_are_refused():
    tune, test = features(10, 10)
    with pytest.raises(UserError, match="features of 4 and 8 values cannot be compared; remake"):
        measure(features(10, width=4), {"tune": tune, "test": test}, "net")


def test_kid_of_each_class_sees_samples_of_other_classes_than_asked_for():
    stream = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1] * 20)
    centre = torch.where(labels > 0, 3.0, -3.0)[:, None]
    real, right = (torch.randn(40, 8, generator=stream) + centre for _ in range(2))

    def class_kid(samples: torch.Tensor) -> float:
        return measure_classes([samples], [labels], real, labels, "net")[0].values[0]

    assert abs(class_kid(right)) < 0.1 * class_kid(right.roll(1, 0))
    assert measure_classes([right[:2]], [labels[:2]], real, labels, "net") == []  # one of each

"""The band of the discriminator's accuracy, and the end when it goes flat."""

from __future__ import annotations

import pytest

from advloop.training.balance import MEASURED, Band, Collapse


def band(steps: int = 4) -> Band:
    return Band(steps, 1, 6, min_accuracy=0.6, max_accuracy=0.8)


def after(controller: Band, *accuracies: float) -> list[int]:
    """The steps after each of these accuracies, each measured MEASURED times."""
    found = []
    for accuracy in accuracies:
        for _ in range(MEASURED):
            controller.update(accuracy)
        found.append(controller.steps)
    return found


@pytest.mark.parametrize(
    ("accuracies", "steps"),
    [
        ((0.5, 0.5, 0.5, 0.5), [5, 6, 6, 6]),
        ((0.9, 0.9, 0.9, 0.9), [3, 2, 1, 1]),
        ((0.61, 0.7, 0.79), [4, 4, 4]),
        ((0.5, 0.9, 0.7, 1.0), [5, 4, 4, 3]),
    ],
)
def test_steps_rise_below_the_band_fall_above_it_and_stay_within_their_bounds(accuracies, steps):
    assert after(band(), *accuracies) == steps


def test_steps_follow_the_mean_of_several_accuracies_and_not_each_of_them():
    controller = band()
    for accuracy in (0.4, 0.9, 0.8, 0.7):  # mean 0.7
        controller.update(accuracy)
        assert controller.steps == 4
    for accuracy in (0.9, 0.3, 0.5):
        controller.update(accuracy)
        assert controller.steps == 4
    controller.update(0.5)
    assert controller.steps == 5


def test_restored_band_goes_on_where_the_other_was():
    one, other = band(), band()
    one.update(0.1)
    other.load_state_dict(one.state_dict())
    for _ in range(MEASURED - 1):
        other.update(0.6)
    assert other.steps == 5


def test_collapse_is_complete_after_so_many_flat_steps_in_a_row():
    watch = Collapse(gradient=0.1, patience=3)
    seen = []
    for gradient in (0.05, 0.05, 0.2, 0.09, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0):
        watch.update(gradient)
        seen.append((watch.begins, watch.complete))
    assert [begins for begins, _ in seen] == [k in (0, 3, 6) for k in range(10)]
    assert [complete for _, complete in seen] == [k >= 8 for k in range(10)]


def test_threshold_of_zero_never_sees_a_collapse():
    watch = Collapse(gradient=0.0, patience=1)
    watch.update(0.0)
    assert not watch.complete

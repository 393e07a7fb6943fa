"""Where a chaos run strikes."""

from __future__ import annotations

import math

from kills import Course


def test_an_attempt_is_placed_by_its_first_stage_that_the_undisturbed_run_saw():
    """The quick stage `encode` was over before anyone looked in the undisturbed run."""
    course = Course({"generate": 10.0, "train_disc": 30.0}, 60.0)
    assert course.limit({"generate": 2.0}, 35.0) == 2.0 + 25.0
    assert course.limit({"encode": 1.0, "train_disc": 4.0}, 35.0) == 4.0 + 5.0
    assert course.limit({"encode": 1.0}, 35.0) == math.inf

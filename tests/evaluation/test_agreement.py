"""What the views say of a change, when they agree, and which model is handed on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_results import KID, results, scores

from advloop.evaluation.agreement import (
    BETTER,
    SMALL,
    UNCLEAR,
    WORSE,
    agreed,
    change,
    compare,
    rounds,
    select,
)
from advloop.evaluation.results import VIEWS
from advloop.evaluation.scores import Score

BASE = scores("base", 10.4)  # ten from the bound of 0.4
LOOSE = (3.0, 12.0, 1.0)  # seeds in another order: wide differences


@pytest.mark.parametrize(
    ("value", "says"),
    [(9.3, BETTER), (9.5, SMALL), (10.4, UNCLEAR), (11.3, SMALL), (11.5, WORSE), (LOOSE, UNCLEAR)],
)
def test_a_change_is_named_if_it_exceeds_its_interval_and_the_smallest_worth_naming(value, says):
    """A tenth of the way is 1."""
    run = results(BASE, scores("iter_0", value))
    found = compare(run, *run.models)
    assert [one.says for one in found] == [says] * 5
    assert {one.way for one in found} == {10.0}


def test_a_base_model_at_its_bound_leaves_no_smallest_change():
    run = results(scores("base", 0.2), scores("iter_0", 0.1))
    assert {(one.way, one.says) for one in compare(run, *run.models)} == {(0.0, BETTER)}


def test_a_change_is_paired_by_sampling_seed_and_by_group():
    before = Score(KID, (1.0, 2.0, 3.0), without=(5.0, 7.0, 9.0))
    after = Score(KID, (0.9, 1.9, 2.9), without=(4.9, 6.9, 8.9))
    mean, half = change(before, after)
    assert mean == pytest.approx(-0.1)
    assert half == pytest.approx(0.0, abs=1e-9)  # seeds and groups differ, their changes do not
    moved = replace(after, without=(4.9, 6.9, 7.9))
    # jackknife variance of changes (-0.1, -0.1, -1.1): 2 / 3 * (1 / 9 + 1 / 9 + 4 / 9)
    assert change(before, moved)[1] == pytest.approx(4.303 * (2 / 3 * 6 / 9) ** 0.5, rel=1e-3)


def test_each_round_is_compared_with_the_model_that_it_started_from():
    run = results(scores("base", 5.0), scores("iter_0", 3.0), scores("iter_1", 4.0, kid=1.0))
    moved = {name: [round(one.change, 6) for one in found] for name, found in rounds(run).items()}
    assert moved == {"iter_0": [-2.0] * 5, "iter_1": [1.0, 1.0, -2.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("views", "valid", "better"),
    [
        ({}, VIEWS, False),
        ({"kid": 5}, VIEWS, False),  # one view alone
        ({"kid": 5, "pixels": 5}, VIEWS, True),
        ({"kid": 5, "pixels": 5, "layout": 20}, VIEWS, False),  # another says the opposite
        ({"kid": 5, "pixels": 5, "layout": 20}, ("kid", "pixels"), True),  # which does not count
        ({"kid": 5, "pixels": 5}, ("kid", "layout"), False),
        (dict.fromkeys(VIEWS, 5), (), False),
    ],
)
def test_two_valid_views_agree_if_none_says_the_opposite(views, valid, better):
    run = results(BASE, scores("iter_0", 10.4, **views), valid=valid)
    found = compare(run, *run.models)
    assert agreed(found, BETTER) == better
    assert not agreed(found, WORSE)
    assert select(run) == ("iter_0" if better else "base")


def test_tune_images_select_whatever_is_reported():
    first, second = scores("iter_0", 20.0, tune=5.0), scores("iter_1", 1.0, tune=9.0)
    assert select(results(BASE, first, second)) == "iter_0"
    assert select(results(BASE)) == "base"


def test_a_later_model_is_compared_with_the_one_chosen_so_far_and_a_tie_keeps_it():
    models = [BASE, scores("iter_0", 5.0), scores("iter_1", 8.0), scores("iter_2", 3.0)]
    assert select(results(*models[:3])) == "iter_0"
    assert select(results(*models)) == "iter_2"
    assert select(results(*models[:2], scores("iter_1", 5.0))) == "iter_0"

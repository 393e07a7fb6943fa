"""What a run says in words: helped, unclear, worse; and what it warns of."""

from __future__ import annotations

import pytest
from small_results import results, scores

from advloop.reporting.verdict import BETTER, UNCLEAR, WORSE, conclude, worse_rounds

BASE = scores("base", 3, 0.5)


def first(kid, gap, **more):
    return scores("iter_0", kid, gap, **more)


UNSURE = first((3.0, 2.9, 2.8), (0.5, 0.4, 0.3))  # seeds in another order: wide differences


@pytest.mark.parametrize(
    ("last", "selected", "says", "headline"),
    [
        (first(2, 0.1), "iter_0", [BETTER, BETTER], "The rounds helped: iter_0"),
        (first(2, 0.9), "iter_0", [BETTER, WORSE], "The rounds helped in part: iter_0"),
        (first(4, 0.1), "base", [WORSE, BETTER], "The rounds did not help: the base model"),
        (first(4, 0.9, tune=0), "iter_0", [WORSE, WORSE], "The rounds made things worse: iter_0"),
        (UNSURE, "iter_0", [UNCLEAR, UNCLEAR], "It is unclear whether the rounds helped: iter_0"),
    ],
)
def test_headline_follows_from_the_paired_changes(last, selected, says, headline):
    verdict = conclude(results(BASE, last))
    assert verdict.headline.startswith(headline)
    assert verdict.selected == selected
    assert [found.says for found in verdict.found] == says
    assert verdict.compared == "iter_0"  # base against itself would say nothing
    assert verdict.seeds == 3


def test_the_selected_round_is_compared_and_each_with_the_one_before():
    verdict = conclude(results(BASE, first(1, 0.3), scores("iter_1", 2, 0.3)))
    assert (verdict.selected, verdict.compared) == ("iter_0", "iter_0")
    kid, gap = verdict.found
    assert (kid.title, kid.before, kid.after, kid.change) == ("KID", 3, 1, pytest.approx(-2))
    assert (gap.title, gap.change) == ("critic gap", pytest.approx(-0.2))
    assert [found.says for found in verdict.rounds["iter_1"]] == [WORSE, UNCLEAR]


def test_warnings_name_worse_rounds_the_discriminators_health_and_a_last_round_left_out():
    models = BASE, first(1, 0.3), scores("iter_1", 2, 0.3)
    worse, strong, left = conclude(results(*models, accuracy={"iter_0": 0.95})).warnings
    assert worse.startswith("iter_1 made kid_lite0 of the test images worse by 1.0000 ± 0.0000")
    assert strong.startswith("iter_0: discriminator too strong")
    assert left == "the last round is not the best: iter_0 is selected, not iter_1"
    assert conclude(results(*models[:2])).warnings == []


def test_a_rise_within_its_interval_is_no_worse_round():
    noisy = results(
        scores("base", (0.9, 1.1), (0.1, 0.1)), scores("iter_0", (1.3, 0.9), (0.1, 0.1))
    )
    assert worse_rounds(noisy) == []

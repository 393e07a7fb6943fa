"""What a run says in words: helped, not shown, worse; and what it warns of."""

from __future__ import annotations

import pytest

from advloop.reporting.verdict import BETTER, UNCLEAR, WORSE, judge


def row(kid: float, gap: float, tune: float | None = None, **more: float) -> dict:
    """A row whose three sampling seeds lie 0.1 apart: equal ones pair exactly."""
    seeds = {
        name: [value - 0.1, value, value + 0.1]
        for name, value in (("kid_lite0", kid), ("critic_gap", gap))
    }
    values = {"kid_lite0": kid, "kid_lite0_ci95": 0.1, "critic_gap": gap, "critic_gap_ci95": 0.1}
    return values | {"tune_kid_lite0": kid if tune is None else tune} | more | {"seeds": seeds}


def noisy(kid: float, gap: float) -> dict:
    """Another order of the seeds: its differences to the others have a wide interval."""
    made = row(kid, gap)
    made["seeds"] = {name: values[::-1] for name, values in made["seeds"].items()}
    return made


@pytest.mark.parametrize(
    ("last", "selected", "says", "headline"),
    [
        (row(2, 0.1), "iter_0", [BETTER, BETTER], "The rounds helped: iter_0"),
        (row(2, 0.9), "iter_0", [BETTER, WORSE], "The rounds helped in part: iter_0"),
        (row(4, 0.1), "base", [WORSE, BETTER], "The rounds did not help: the base model"),
        (row(4, 0.9, tune=0), "iter_0", [WORSE, WORSE], "The rounds made things worse: iter_0"),
        (noisy(2.9, 0.4), "iter_0", [UNCLEAR, UNCLEAR], "It is not shown that the rounds helped"),
    ],
)
def test_headline_follows_from_the_paired_changes(last, selected, says, headline):
    verdict = judge({"base": row(3, 0.5), "iter_0": last})
    assert verdict.headline.startswith(headline)
    assert verdict.selected == selected
    assert [found.says for found in verdict.found] == says
    assert verdict.compared == "iter_0"  # base against itself would say nothing
    assert verdict.seeds == 3


def test_the_selected_round_is_compared_and_each_with_the_one_before():
    rows = {"base": row(3, 0.5), "iter_0": row(1, 0.3), "iter_1": row(2, 0.3)}
    verdict = judge(rows)
    assert (verdict.selected, verdict.compared) == ("iter_0", "iter_0")
    kid, gap = verdict.found
    assert (kid.before, kid.after, kid.change) == (3, 1, pytest.approx(-2))
    assert gap.change == pytest.approx(-0.2)
    assert [found.says for found in verdict.rounds["iter_1"]] == [WORSE, UNCLEAR]


def test_warnings_name_worse_rounds_the_discriminators_health_and_a_last_round_left_out():
    rows = {
        "base": row(3, 0.5),
        "iter_0": row(1, 0.3, disc_val_accuracy=0.95),
        "iter_1": row(2, 0.3, disc_val_accuracy=0.6),
    }
    worse, strong, left = judge(rows).warnings
    assert worse.startswith("iter_1 made kid_lite0 of the test images worse by 1.0000")
    assert strong.startswith("iter_0: discriminator too strong")
    assert left == "the last round is not the best: iter_0 is selected, not iter_1"
    assert judge({"base": row(3, 0.5), "iter_0": row(1, 0.3)}).warnings == []

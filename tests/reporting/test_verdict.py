"""What a run says in words: helped, hurt, no change, or nothing; and what it warns of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_results import METRICS, results, scores

from advloop.evaluation.results import VIEWS
from advloop.evaluation.scores import Metric, Score
from advloop.reporting.verdict import HELPED, HURT, NO_CHANGE, NOTHING, conclude

BASE = scores("base", 10.4)  # a tenth of the way to the bound is 1
LOOSE = (3.0, 12.0, 1.0)  # seeds in another order: wide differences


def first(value=10.4, **more):
    return scores("iter_0", value, **more)


@pytest.mark.parametrize(
    ("last", "selected", "kind", "headline"),
    [
        (first(5), "iter_0", HELPED, "The round of this run helped (iter_0: pixels, layout, KID,"),
        (
            first(kid=5, pixels=5),
            "iter_0",
            HELPED,
            "The round of this run helped (iter_0: pixels and KID: better; layout, latent critics "
            "and image critics: no change shown).",
        ),
        (first(20), "base", HURT, "The round of this run hurt (iter_0: "),
        (first(), "base", NO_CHANGE, "No change shown in this run: iter_0 may differ only by"),
        (first(LOOSE), "base", NO_CHANGE, "No change shown in this run"),
        (first(10), "base", NOTHING, "Nothing can be concluded. The changes of iter_0 are smaller"),
        (
            first(kid=5, pixels=5, layout=20),
            "base",
            NOTHING,
            "Nothing can be concluded. The views do not agree about iter_0 (pixels and KID: better",
        ),
        (first(kid=5), "base", NOTHING, "Nothing can be concluded. The views do not agree"),
        (first(20, tune=5), "iter_0", HURT, "The round of this run hurt (iter_0: "),
    ],
)
def test_headline_follows_from_what_the_views_say(last, selected, kind, headline):
    verdict = conclude(results(BASE, last))
    assert (verdict.kind, verdict.selected) == (kind, selected)
    assert verdict.headline.startswith(headline)
    assert verdict.compared == "iter_0"  # base against itself would say nothing
    assert verdict.seeds == 3
    assert verdict.reasons == []


def test_several_rounds_are_said_to_be_several():
    verdict = conclude(results(BASE, first(8), scores("iter_1", 5)))
    assert verdict.headline.startswith("The rounds of this run helped (iter_1: ")


def test_nothing_is_concluded_if_too_few_views_pass_the_exam():
    verdict = conclude(results(BASE, first(5), valid=("kid",)))
    assert verdict.kind == NOTHING
    assert verdict.headline == "Nothing can be concluded. The views cannot judge this base model."
    assert verdict.reasons == ["of 5 views, KID passed the exam of this run; 2 are needed"]
    none = conclude(results(BASE, first(5), valid=()))
    assert none.reasons[0].startswith("of 5 views, none passed the exam")


def test_nothing_is_concluded_if_garbage_is_ahead_of_the_base_model_in_any_view():
    valid = [view for view in VIEWS if view not in ("pixels", "kid")]
    verdict = conclude(results(BASE, first(5), valid=valid, garbage=True))
    assert verdict.kind == NOTHING
    assert verdict.reasons == ["the base model is behind garbage (random pixels) in pixels and KID"]


@pytest.mark.parametrize(("auc", "recall", "apart"), [(0.995, 0.0, True), (0.995, 0.1, False)])
def test_nothing_is_concluded_if_critics_see_no_overlap(auc, recall, apart):
    more = (Score(Metric("critic_auc", "AUC"), (auc,)), Score(Metric("recall", "r"), (recall,)))
    verdict = conclude(results(scores("base", 10.4, *more), first(5)))
    assert (verdict.kind == NOTHING) == apart
    says = ["critics tell the base model's samples from real ones at AUC 0.995, and their recall"]
    assert [line[: len(says[0])] for line in verdict.reasons] == (says if apart else [])


def test_the_selected_round_is_compared_and_each_with_the_one_before():
    verdict = conclude(results(BASE, first(5), scores("iter_1", 8.0, kid=5.0)))
    assert (verdict.selected, verdict.compared) == ("iter_0", "iter_0")
    found = {one.view: one for one in verdict.found}
    kid = found["kid"]
    assert (kid.title, kid.before, kid.after) == (METRICS["kid"].title, 10.4, 5)
    assert kid.change == pytest.approx(-5.4)
    says = {one.view: one.says for one in verdict.rounds["iter_1"]}
    assert (says["pixels"], says["kid"]) == ("worse", "no change shown")


def test_warnings_name_worse_rounds_the_discriminators_health_and_a_last_round_left_out():
    models = BASE, first(5), scores("iter_1", 5.0, kid=8.0)
    worse, strong, left = conclude(results(*models, accuracy={"iter_0": 0.95})).warnings
    assert worse == "iter_1 made KID worse by 3.00 ± 0.00"
    assert strong.startswith("iter_0: discriminator too strong")
    assert left == "the last round is not handed on: iter_0 is selected, not iter_1"
    assert conclude(results(*models[:2])).warnings == []
    blind = results(*models, valid=[view for view in VIEWS if view != "kid"])
    assert conclude(blind).warnings == [left]  # a view that did not pass warns of nothing


def test_warning_names_a_round_that_a_collapse_ended():
    run = results(BASE, first(5))
    training = {"iter_0": {"diffusion_collapsed": 1.0, "diffusion_epoch": 4.0}}
    (warning,) = conclude(replace(run, training=training)).warnings
    assert warning.startswith("iter_0: the discriminator collapsed in epoch 4 of train_diffusion")
    training["iter_0"]["diffusion_collapsed"] = 0.0
    assert conclude(replace(run, training=training)).warnings == []

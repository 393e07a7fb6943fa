"""A score's name, mean and interval, and the file that holds a model's scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_results import GAP, KID, a_run, scores

from advloop.core.errors import UserError
from advloop.evaluation.scores import (
    Metric,
    Score,
    Scores,
    mean_and_interval,
    names,
    read_numbers,
    read_scores,
    student_t,
    with_interval,
    write_scores,
)


# Quantiles of Student's t as printed in tables; from 9 on, the expansion is good to a thousandth.
@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (8, 2.306), (9, 2.262), (15, 2.131), (30, 2.042)],
)
def test_quantiles_are_those_of_student(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, rel=1e-3)


def test_mean_and_interval_of_a_hand_made_case():
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5)  # standard deviation 1


def test_a_scores_name_and_title_follow_from_metric_split_and_features():
    tune, gap = Score(KID, (1.0,), "lite0", "tune"), Score(GAP, (1.0,))
    assert (tune.name, tune.title) == ("tune_kid_lite0", "tune KID ↓")
    assert (gap.name, gap.title) == ("critic_gap", "latent critics ↓")
    assert Score(Metric("recall", "recall", "higher"), (1.0,), "net").title == "recall ↑"
    assert Score(Metric("ratio", "ratio"), (1.0,), "net").title == "ratio"


def test_a_model_has_each_mean_beside_its_interval():
    model = scores("base", (1.0, 2.0, 4.0), Score(Metric("loss", "loss"), (0.123456789,)))
    flat = model.flat()
    mean, half = mean_and_interval([1.0, 2.0, 4.0])
    assert (flat["kid_lite0"], flat["kid_lite0_ci95"]) == (round(mean, 6), round(half, 6))
    assert flat["loss"] == 0.123457
    assert "loss_ci95" not in flat
    assert "kid_lite0=2.3 ± 3.8" in model.describe()
    assert "loss=0.12" in model.describe()


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.029, 0.00001, "0.03 ± 0.01"),  # never ± 0.00
        (30.0, 0.2484, "30.00 ± 0.25"),
        (0.1234, None, "0.12"),
        (156.4, 12.3, "156 ± 13"),
        (156.4, 1.31, "156.4 ± 1.4"),
        (2.0, 0.0, "2.00 ± 0.00"),
    ],
)
def test_tables_show_two_digits_of_the_interval_rounded_up(mean, half, text):
    assert with_interval(mean, half) == text


def test_an_interval_covers_the_choice_of_groups_as_well_as_the_draw():
    """Means over groups with effects of their own: in 95 of 100 cases the interval holds."""
    stream, held, alone = np.random.default_rng(0), 0, 0
    for _ in range(400):
        groups = stream.normal(size=12)  # the expectation is 0
        values = [groups.mean() + 0.1 * stream.normal() for _ in range(3)]
        without = [np.delete(groups, k).mean() + np.mean(values) - groups.mean() for k in range(12)]
        mean, half = mean_and_interval(values, without)
        held += abs(mean) <= half
        alone += abs(mean) <= mean_and_interval(values)[1]
    assert 0.92 * 400 <= held <= 0.98 * 400  # a standard error of 400 cases is 1.1 %
    assert alone < 0.75 * 400


def test_a_missing_score_is_refused_in_one_line():
    model = scores("iter_0", 1.0)
    assert model.find("recall") is None
    with pytest.raises(UserError, match="iter_0 has no test recall; run `dvc repro`"):
        model.get("recall")


def test_names_are_those_that_any_model_has_in_order():
    assert [score.name for score in names(a_run().models)] == [
        *("pixels", "layout", "kid_lite0", "critic_gap", "image_critic_gap"),
        *("tune_pixels", "tune_layout", "tune_kid_lite0"),
        *("tune_critic_gap", "tune_image_critic_gap"),
        "critic_auc_null_se",
        "viability_score",
    ]


def test_scores_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "scores.json"
    for model in (*a_run().models, scores("reals", -0.1, features="größe")):
        write_scores(path, model)
        assert read_scores(path) == model


ROW = {
    "metric": {"name": "kid", "title": "KID", "better": "lower", "listed": "table"},
    "values": [1.0, 2],
    "features": "lite0",
    "split": "test",
    "without": [0.5],
}


def changed(**changes):
    return {"model": "base", "scores": [ROW | changes]}


DAMAGED = {
    "a list": [],
    "no model": {"scores": [ROW]},
    "no scores": {"model": "base"},
    "an empty list": {"model": "base", "scores": []},
    "a score twice": {"model": "base", "scores": [ROW, ROW]},
    "numbers by name": {"base": {"kid_lite0": 1.0, "seeds": {}}},
    "no split": {"model": "base", "scores": [{k: v for k, v in ROW.items() if k != "split"}]},
    "no values": changed(values=[]),
    "a text for values": changed(values="12"),
    "NaN without a group": changed(without=[float("nan")]),
    "NaN": changed(values=[float("nan")]),
    "beyond any float": changed(values=[10**400]),
    "true": changed(values=[True]),
    "features of a number": changed(features=1),
    "an unknown field": changed(metric=ROW["metric"] | {"more": 1}),
    "an unknown direction": changed(metric=ROW["metric"] | {"better": "up"}),
    "an unknown table": changed(metric=ROW["metric"] | {"listed": "nowhere"}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_or_foreign_scores_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(changed()))
    assert read_scores(path) == Scores("base", (Score(KID, (1.0, 2), "lite0", "test", (0.5,)),))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"scores\.json: not the scores of a model") as caught:
        read_scores(path)
    assert "\n" not in str(caught.value)
    assert "dvc repro" in str(caught.value)


@pytest.mark.parametrize("content", ["[]", '{"loss": "low"}', '{"loss": NaN}', '{"loss": true}'])
def test_numbers_of_a_training_are_finite_or_refused_in_one_line(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text('{"loss": 0.5, "epochs": 3}')
    assert read_numbers(path) == {"loss": 0.5, "epochs": 3}
    path.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json: not numbers by name \(.*\); remake"):
        read_numbers(path)

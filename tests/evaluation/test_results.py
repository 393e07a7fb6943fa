"""Reading all scores of a run, the paired changes of its rounds, and the selected model."""

from __future__ import annotations

import pytest
from small_results import a_run, results, scores, write_run

from advloop.core.errors import UserError
from advloop.evaluation.results import change, changes, read_results, select
from advloop.evaluation.scores import write_scores


def test_results_come_back_as_their_stages_wrote_them(tmp_path):
    run = a_run()
    again = read_results(*write_run(tmp_path, run))
    assert again == run
    assert again.base.model == "base"
    assert [one.model for one in again.all] == ["reals", "autoencoder", "base", "iter_0", "iter_1"]


def test_training_metrics_say_which_stage_they_are_from(tmp_path):
    folders = write_run(tmp_path, a_run())
    (one, _) = folders[2]
    one.metrics.write_text('{"val_loss": 0.5}')
    found = read_results(*folders).training["iter_0"]
    assert found == {"disc_val_accuracy": 0.6, "diffusion_val_loss": 0.5}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (scores("iter_0", 1.0), "holds the scores of iter_0, not iter_1"),
        (scores("iter_1", (1.0,), tune=1.0), "iter_1 has no kid by seed"),
        (scores("iter_1", 1.0, (0.5,)), "iter_1 has no critic_gap by seed"),
        (scores("iter_1", (1.0, 2.0), tune=1.0), "kid has sampling seeds 2, but 3 in the base"),
        (scores("iter_1", 1.0, (1.0, 2.0)), "critic_gap has sampling seeds 2, but 3"),
        (
            scores("iter_1", 1.0, features="net"),
            "tune kid has scores tune_kid_net, but tune_kid_lite0",
        ),
    ],
)
def test_models_that_cannot_be_compared_are_refused_in_one_line(tmp_path, wrong, says):
    folders = write_run(tmp_path, a_run())
    path = folders[2][1].evaluation / "scores.json"
    write_scores(path, wrong)
    with pytest.raises(UserError) as caught:
        read_results(*folders)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "dvc repro" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["tune kid", "critic_gap"])
def test_a_model_without_a_score_that_it_is_judged_by_is_refused(tmp_path, missing):
    folders = write_run(tmp_path, a_run())
    whole = a_run().models[1]
    kept = tuple(
        score for score in whole.scores if not score.name.startswith(missing.replace(" ", "_"))
    )
    write_scores(folders[2][0].evaluation / "scores.json", type(whole)("iter_0", kept))
    with pytest.raises(UserError, match=rf"scores\.json: iter_0 has no {missing} by seed; remake"):
        read_results(*folders)


def test_the_lowest_tune_kid_selects_whatever_the_reported_one_is():
    base, first = scores("base", 0.1, tune=0.9), scores("iter_0", 0.9, tune=0.7)
    assert select([base, first, scores("iter_1", 0.5, tune=0.8)]) == "iter_0"
    assert select([base]) == "base"


@pytest.mark.parametrize("lead", [0.0, 1e-8])  # files keep six decimals
def test_the_first_of_tied_models_is_selected(lead):
    tied = (scores(name, 0.5, tune=0.5) for name in ("base", "iter_0"))
    assert select([*tied, scores("iter_1", 0.1, tune=0.5 - lead)]) == "base"


def test_a_change_is_paired_by_sampling_seed():
    before, after = scores("base", (1.0, 2.0, 3.0)), scores("iter_0", (0.9, 1.9, 2.9))
    mean, half = change(before, after, "kid")
    assert mean == pytest.approx(-0.1)
    assert half == pytest.approx(0.0, abs=1e-9)  # the seeds differ, their changes do not


def test_each_round_is_compared_with_the_model_that_it_started_from():
    run = results(scores("base", 1.0, 0.5), scores("iter_0", 0.8, 0.4), scores("iter_1", 0.9, 0.6))
    found = {
        model: {name: mean for name, (mean, _) in by_name.items()}
        for model, by_name in changes(run).items()
    }
    assert found == {
        "iter_0": pytest.approx({"kid_lite0": -0.2, "critic_gap": -0.1}),
        "iter_1": pytest.approx({"kid_lite0": 0.1, "critic_gap": 0.2}),
    }

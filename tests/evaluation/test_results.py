"""Reading all scores of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_results import SMALLEST, a_run, scores, write_run

from advloop.core.errors import UserError
from advloop.evaluation.results import read_results
from advloop.evaluation.scores import write_scores


def test_results_come_back_as_their_stages_wrote_them(tmp_path):
    run = a_run()
    again = read_results(*write_run(tmp_path, run), SMALLEST)
    assert again == run
    assert again.base.model == "base"
    assert [one.model for one in again.all] == ["reals", "autoencoder", "base", "iter_0", "iter_1"]


def test_training_metrics_say_which_stage_they_are_from(tmp_path):
    folders = write_run(tmp_path, a_run())
    (one, _) = folders[2]
    one.metrics.write_text('{"val_loss": 0.5}')
    found = read_results(*folders, SMALLEST).training["iter_0"]
    assert found == {"disc_val_accuracy": 0.6, "diffusion_val_loss": 0.5}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (scores("iter_0", 1.0), "holds the scores of iter_0, not iter_1"),
        (scores("iter_1", 1.0, kid=(1.0,), tune=1.0), "iter_1 has no kid by seed"),
        (scores("iter_1", 1.0, critic_gap=(0.5,)), "iter_1 has no critic_gap by seed"),
        (scores("iter_1", 1.0, kid=(1.0, 2.0), tune=1.0), "kid has sampling seeds 2, but 3 in the"),
        (scores("iter_1", 1.0, features="net"), "kid has scores kid_net, but kid_lite0"),
    ],
)
def test_models_that_cannot_be_compared_are_refused_in_one_line(tmp_path, wrong, says):
    folders = write_run(tmp_path, a_run())
    path = folders[2][1].evaluation / "scores.json"
    write_scores(path, wrong)
    with pytest.raises(UserError) as caught:
        read_results(*folders, SMALLEST)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "dvc repro" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["tune kid", "critic_gap", "layout"])
def test_a_model_without_a_score_that_it_is_judged_by_is_refused(tmp_path, missing):
    folders = write_run(tmp_path, a_run())
    whole = a_run().models[1]
    kept = tuple(
        score for score in whole.scores if not score.name.startswith(missing.replace(" ", "_"))
    )
    write_scores(folders[2][0].evaluation / "scores.json", type(whole)("iter_0", kept))
    with pytest.raises(UserError, match=rf"scores\.json: iter_0 has no {missing} by seed; remake"):
        read_results(*folders, SMALLEST)


def test_models_without_as_many_groups_left_out_are_refused(tmp_path):
    folders = write_run(tmp_path, a_run())
    whole = a_run().models[2]
    path = folders[2][1].evaluation / "scores.json"
    first = replace(whole.scores[0], without=(1.0, 2.0))
    write_scores(path, replace(whole, scores=(first, *whole.scores[1:])))
    with pytest.raises(UserError, match="pixels has groups of reals 2, but 0 in the base model"):
        read_results(*folders, SMALLEST)


def test_an_exam_of_other_figures_is_refused(tmp_path):
    folders = write_run(tmp_path, a_run())
    path = folders[0] / "exam.json"
    path.write_text(path.read_text().replace("layout", "texture"))
    with pytest.raises(UserError, match=r"exam\.json: does not fit the views \(layout\); remake"):
        read_results(*folders, SMALLEST)

"""metrics.json, rounds.csv and the table: the same scores, with nothing to add for a new metric."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import REPO
from small_results import GAP, a_run, results, scores, some_params, write_run

from advloop.evaluation import metrics
from advloop.evaluation.results import AUTOENCODER, Results, read_results
from advloop.evaluation.scores import Metric, Score, Scores
from advloop.evaluation.summary import markdown_table, rounds_csv, summary
from advloop.reporting.page import page


def test_metrics_json_has_numbers_by_model_and_the_paired_changes_of_each_round():
    content = summary(a_run())
    held_out, training = content["held_out"], content["training"]
    assert training == {name: {"disc_val_accuracy": 0.6} for name in ("iter_0", "iter_1")}
    assert set(held_out) == {"reals", "autoencoder", "base", "iter_0", "iter_1", "final"}
    values = [v for part in content.values() for row in part.values() for v in row.values()]
    assert all(isinstance(value, int | float) for value in values)
    assert held_out["iter_1"]["change_kid_lite0"] == 5.0
    assert held_out["iter_1"]["change_kid_lite0_ci95"] == pytest.approx(0.0)
    assert held_out["iter_1"]["change_critic_gap"] == -0.1
    for model in ("base", "final"):
        assert not [name for name in held_out[model] if name.startswith("change_")]


def test_final_is_the_selected_model_and_not_the_last():
    final = summary(a_run())["held_out"]["final"]
    assert (final["iteration"], final["kid_lite0"]) == (0, 20.0)
    none_helped = results(scores("base", 1.0), scores("iter_0", 2.0))
    assert summary(none_helped)["held_out"]["final"]["iteration"] == -1


def test_table_of_rounds_has_its_columns_and_a_line_a_model():
    run = a_run()
    floor = tuple(score for score in run.reals.scores if score.metric != GAP)
    text = rounds_csv(replace(run, reals=Scores("reals", floor)))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [
        "iteration",
        *("kid", "kid_ci95", "kid_floor"),
        *("critic_gap", "critic_gap_ci95", "critic_gap_floor"),
        "viability_score",
    ]
    assert [row["iteration"] for row in rows] == ["-1", "0", "1"]
    assert [row["kid"] for row in rows] == ["30.0", "20.0", "25.0"]
    assert {row["kid_ci95"] for row in rows} == {"0.248434"}  # 4.303 * 0.1 / sqrt(3)
    assert {row["kid_floor"] for row in rows} == {"0.01"}
    assert {row["critic_gap_floor"] for row in rows} == {""}  # not measured here
    assert [row["viability_score"] for row in rows] == ["", "0.25", "0.75"]
    assert text.endswith("0.75\n")


def test_markdown_table_has_a_line_a_model_with_intervals_where_they_are():
    lines = markdown_table(a_run()).splitlines()
    assert lines[0] == "| model | KID ↓ | critic gap ↓ | viability | D accuracy |"
    assert len(lines) == 2 + 5
    assert lines[2].startswith("| real against real (floor) | 0.0100 ± 0.0000 | 0.0000 ± 0.0000 |")
    assert lines[3] == "| real through the autoencoder (bound) | 0.4000 ± 0.0000 |  |  |  |"
    assert lines[4] == "| base model | 30.0000 ± 0.2484 | 0.5000 ± 0.2484 |  |  |"
    assert lines[5].endswith("| 0.2500 | 0.6000 |")


@pytest.mark.parametrize("listed", ["table", "page", "file"])
def test_one_entry_in_metrics_is_all_that_a_new_metric_needs(monkeypatch, tmp_path, listed):
    ratio = Metric("ratio", "size ratio", better="higher", listed=listed)
    entry = {ratio: lambda samples, real: len(samples) / len(real)}
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS | entry)
    stream = torch.Generator().manual_seed(0)
    *samples, tune, test = (torch.randn(n, 4, generator=stream) for n in (10, 10, 10, 8, 20))
    gap = Score(GAP, (0.1, 0.2, 0.3))
    measured = (*metrics.measure(samples, {"tune": tune, "test": test}, "net"), gap)
    models = [Scores(name, measured) for name in ("reals", AUTOENCODER, "base", "iter_0")]
    training = {"iter_0": {"disc_val_accuracy": 0.6}}
    folders = write_run(tmp_path, Results(*models[:2], tuple(models[2:]), training))
    run = read_results(*folders)

    held_out = summary(run)["held_out"]
    assert all(row["ratio_net"] == 0.5 for row in held_out.values())
    assert all(row["ratio_net_ci95"] == 0.0 for row in held_out.values())
    table = markdown_table(run).splitlines()
    assert ("size ratio ↑" in table[0]) == (listed == "table")
    assert ("| 0.5000 ± 0.0000 |" in table[4]) == (listed == "table")
    text = page(run, *folders, some_params())
    assert ("size ratio" in text) == (listed != "file")
    assert ("0.5000 ±\u00a00.0000" in text) == (listed != "file")


@pytest.mark.parametrize(
    "module",
    [
        *("evaluation.scores", "evaluation.results", "evaluation.summary", "evaluation.gallery"),
        *("reporting.page", "reporting.pictures", "reporting.verdict", "reporting.template"),
    ],
)
def test_modules_of_the_light_stages_import_neither_torch_nor_pandas(module):
    code = f"import sys, advloop.{module}; print({{'torch', 'pandas'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"

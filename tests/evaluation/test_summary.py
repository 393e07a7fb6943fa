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
from small_results import (
    GAP,
    SMALLEST,
    TITLES,
    a_run,
    a_run_of_few_steps,
    results,
    scores,
    some_params,
    write_run,
)

from advloop.evaluation import metrics
from advloop.evaluation.results import AUTOENCODER, VIEWS, read_results
from advloop.evaluation.scores import Metric, Scores
from advloop.evaluation.summary import exam_rows, markdown_table, rounds_csv, summary
from advloop.reporting.page import page


def test_metrics_json_has_numbers_by_model_and_the_paired_changes_of_each_round():
    content = summary(a_run())
    held_out, training = content["held_out"], content["training"]
    assert training == {name: {"disc_val_accuracy": 0.6} for name in ("iter_0", "iter_1")}
    assert set(held_out) == {"reals", "autoencoder", "base", "iter_0", "iter_1", "final"}
    rows = [*held_out.values(), *training.values(), content["exam"]]
    assert all(isinstance(v, int | float) for row in rows for v in row.values())
    assert content["exam"] == dict.fromkeys(VIEWS, 1)
    assert held_out["iter_1"]["change_kid_lite0"] == 5.0
    assert held_out["iter_1"]["change_kid_lite0_ci95"] == pytest.approx(0.0)
    assert held_out["iter_1"]["change_critic_gap"] == -1.0
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
    heads = [f"{view}{end}" for view in VIEWS for end in ("", "_ci95", "_floor")]
    assert list(rows[0]) == ["iteration", *heads, "viability_score"]
    assert [row["iteration"] for row in rows] == ["-1", "0", "1"]
    assert [row["kid"] for row in rows] == ["30.0", "20.0", "25.0"]
    assert {row["kid_ci95"] for row in rows} == {"0.248434"}  # 4.303 * 0.1 / sqrt(3)
    assert {row["kid_floor"] for row in rows} == {"0.01"}
    assert {row["critic_gap_floor"] for row in rows} == {""}  # not measured here
    assert [row["viability_score"] for row in rows] == ["", "0.25", "0.75"]
    assert text.endswith("0.75\n")


def test_base_model_with_few_steps_has_its_row_beside_the_base_model_and_is_never_handed_on(
    tmp_path,
):
    """It is written, read and tabulated, though no tune image has judged it."""
    written = a_run_of_few_steps()
    read = read_results(*write_run(tmp_path, written), SMALLEST)
    assert read.base_few == written.base_few
    found = summary(read)["held_out"]
    assert found["base_few_steps"]["kid_lite0"] == 60.0
    assert found["final"] == summary(a_run())["held_out"]["final"]
    lines = markdown_table(read).splitlines()
    assert [line.split(" | ")[0] for line in lines[4:6]] == [
        "| base model",
        "| base model, few steps",
    ]
    assert rounds_csv(read) == rounds_csv(a_run())


def test_markdown_table_has_a_line_a_model_with_intervals_where_they_are():
    lines = markdown_table(a_run()).splitlines()
    views = " | ".join(f"{title} ↓" for title in TITLES)
    assert lines[0] == f"| model | {views} | viability | D accuracy |"
    assert len(lines) == 2 + 5
    assert lines[2] == f"| real against real (floor) |{' 0.01 ± 0.00 |' * 5}  |  |"
    assert lines[4] == f"| base model |{' 30.00 ± 0.25 |' * 5}  |  |"
    assert lines[5].endswith("| 0.25 | 0.60 |")


def test_rows_of_the_exam_hold_garbage_beside_the_base_model():
    rows = exam_rows(a_run())
    assert [row[0] for row in rows] == [
        *("real against real (floor)", "real through the autoencoder (bound)", "base model"),
        "random pixels",
    ]
    assert rows[-1][1:] == ("50.00",) * 5


@pytest.mark.parametrize("listed", ["table", "page", "file"])
def test_one_entry_in_metrics_is_all_that_a_new_metric_needs(monkeypatch, tmp_path, listed):
    ratio = Metric("ratio", "size ratio", better="higher", listed=listed)
    entry = {ratio: lambda samples, real: len(samples) / len(real)}
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS | entry)
    stream = torch.Generator().manual_seed(0)
    *samples, test = (torch.randn(n, 4, generator=stream) for n in (10, 10, 10, 20))
    measured = (*metrics.measure(samples, test, "net"), *scores("", 1.0).scores)
    models = [Scores(name, measured) for name in ("reals", AUTOENCODER, "base", "iter_0")]
    training = {"iter_0": {"disc_val_accuracy": 0.6}}
    made = results(*models[2:])
    made = replace(made, reals=models[0], autoencoder=models[1], training=training)
    folders = write_run(tmp_path, made)
    run = read_results(*folders, SMALLEST)

    held_out = summary(run)["held_out"]
    assert all(row["ratio_net"] == 0.5 for row in held_out.values())
    assert all(row["ratio_net_ci95"] == 0.0 for row in held_out.values())
    table = markdown_table(run).splitlines()
    assert ("size ratio ↑" in table[0]) == (listed == "table")
    assert ("| 0.50 ± 0.00 |" in table[4]) == (listed == "table")
    text = page(run, *folders, some_params())
    assert ("size ratio" in text) == (listed != "file")
    assert ("0.50 ±\u00a00.00" in text) == (listed != "file")


@pytest.mark.parametrize(
    "module",
    [
        *("evaluation.scores", "evaluation.results", "evaluation.summary", "evaluation.gallery"),
        *("evaluation.agreement", "evaluation.exam_report"),
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

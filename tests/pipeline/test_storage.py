"""Facts of what leaves the machine: the default remote, a clone, metrics and plots."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

from conftest import REPO, command, dvc, git, must, ran, snapshot


def clone(project: Path) -> Path:
    """A fresh clone beside the project, as a colleague with the same remote has it."""
    must(command(project, "git", "clone", "--quiet", str(project), str(project.parent / "clone")))
    return project.parent / "clone"


def test_pushed_run_is_up_to_date_in_a_fresh_clone(fakes: Path) -> None:
    must(dvc(fakes, "push"))
    assert any((fakes.parent / "advloop-storage").rglob("*")), "the default remote is empty"
    cloned = clone(fakes)
    assert not (cloned / "outputs").exists()
    must(dvc(cloned, "pull"))
    assert snapshot(cloned / "outputs") == snapshot(fakes / "outputs")
    assert ran(must(dvc(cloned, "repro"))) == set()
    assert "up to date" in must(dvc(cloned, "status")).stdout
    assert git(cloned, "status", "--porcelain") == ""


def test_clone_without_the_storage_fails_to_pull(fakes: Path) -> None:
    cloned = clone(fakes)
    assert dvc(cloned, "pull").returncode != 0
    assert not (cloned / "outputs/rounds/iter_1/model/checkpoint_best.pt").exists()


def test_report_stays_in_git_and_out_of_the_storage(fakes: Path) -> None:
    assert set(git(fakes, "ls-files", "reports").split()) == {
        "reports/metrics.json",
        "reports/report.html",
        "reports/rounds.csv",
        "reports/samples.png",
    }
    assert git(fakes, "ls-files", "outputs") == ""


def test_metrics_diff_and_the_table_of_experiments_name_what_one_changed(one_round: Path) -> None:
    must(dvc(one_round, "exp", "run", "-S", "evaluate.num_seeds=4"))
    (shown,) = re.findall("@(dvc exp show .*)", (REPO / "Makefile").read_text())
    table = must(dvc(one_round, *shlex.split(shown)[1:], "--csv")).stdout
    rows = list(csv.DictReader(table.splitlines()))
    about = {"Experiment", "rev", "typ", "Created", "parent", "figure"}  # the last: the fakes' own
    assert set(rows[0]) - about == {"held_out.final.kid_lite0", "evaluate.num_seeds"}
    assert {row["evaluate.num_seeds"] for row in rows} == {"3", "4"}
    done = must(dvc(one_round, "metrics", "diff", "--json", "HEAD"))
    changed = json.loads(done.stdout)
    assert set(changed) == {"reports/metrics.json"}
    assert changed["reports/metrics.json"]["held_out.final.kid_lite0"]["diff"] != 0


def test_plots_draw_every_iteration_on_one_chart(fakes: Path) -> None:
    done = must(dvc(fakes, "plots", "show", "--json"))
    drawn = json.loads(done.stdout)
    assert not drawn.get("errors"), drawn["errors"]
    charts = {
        "discriminator_loss": "train_loss",
        "discriminator_accuracy": "val_accuracy",
        "noise_loss": "val_noise_loss",
        "loss": "val_loss",
    }
    for chart, column in charts.items():
        content = json.dumps(drawn["data"][chart])
        assert column in content, chart
        for iteration in (0, 1):
            assert f"iter_{iteration}" in content, chart
    assert '"viability_score"' in json.dumps(drawn["data"]["viability"])
    for chart, column in (("kid", "kid"), ("critic_gap", "critic_gap")):
        content = json.dumps(drawn["data"][chart])
        assert f'"{column}"' in content, chart
        assert f'"{column}_floor"' in content, chart
    must(dvc(fakes, "plots", "show"))
    page = (fakes / "dvc_plots/index.html").read_text()
    assert all(title in page for title in ("Discriminator loss", "Viability score"))
    assert git(fakes, "status", "--porcelain") == ""

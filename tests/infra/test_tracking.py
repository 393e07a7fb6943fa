"""Trackers show a training stage live, and its outputs are the same with or without one."""

from __future__ import annotations

import csv
import shutil
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from stage_folder import StageFolder

from advloop.infra import tracking

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracking, "_open", {})
    monkeypatch.delenv(tracking.VARIABLE, raising=False)


def test_tensorboard_gets_every_value_of_every_epoch_and_changes_no_output(stages: StageFolder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert stages.run("train_disc").status == 0
    plain, runs = stages.made(), stages.root / tracking.FOLDER
    assert not runs.exists()  # off by default
    shutil.rmtree(stages.root / "made")
    stages.patch.setenv(tracking.VARIABLE, "tensorboard")
    stages.patch.setenv("DVC_STAGE", "train_disc@1")
    assert stages.run("train_disc").status == 0
    assert stages.made() == plain
    events = accumulator.EventAccumulator(str(runs / "workspace/train_disc@1"))
    events.Reload()
    (path,) = (stages.root / "made").rglob("discriminator_history.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"epoch"}
    losses = {scalar.step: scalar.value for scalar in events.Scalars("val_loss")}
    assert losses == pytest.approx(
        {int(row["epoch"]): float(row["val_loss"]) for row in rows}, rel=1e-5
    )


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("wandb", [("init", {"project": "advloop", "group": "bold-cat", "name": "train_disc@0"})]),
        ("mlflow", [("experiment", "advloop"), ("run", "bold-cat/train_disc@0")]),
    ],
)
def test_a_run_is_opened_once_and_gets_each_epoch(
    monkeypatch: pytest.MonkeyPatch, name: str, opened: list[Any]
):
    calls: list[Any] = []

    def init(**about: Any) -> Any:
        calls.append(("init", about))
        return SimpleNamespace(log=lambda v, step: calls.append((step, v)), finish=list)

    mlflow = SimpleNamespace(
        set_experiment=lambda name: calls.append(("experiment", name)),
        start_run=lambda run_name: calls.append(("run", run_name)),
        log_metrics=lambda values, step: calls.append((step, values)),
        end_run=list,
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setenv("DVC_STAGE", "train_disc@0")
    monkeypatch.setenv("DVC_EXP_NAME", "bold-cat")
    monkeypatch.setenv(tracking.VARIABLE, name)
    for epoch in (1, 2):
        tracking.track({"epoch": epoch, "val_loss": 0.5 / epoch})
    assert calls == [*opened, (1, {"val_loss": 0.5}), (2, {"val_loss": 0.25})]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("tensorbord", "known: tensorboard, wandb, mlflow"), ("wandb", "no network")],
)
def test_a_tracker_that_fails_is_one_warning_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, reason: str
):
    def refuse(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    monkeypatch.setenv(tracking.VARIABLE, name)
    for epoch in (1, 2):
        tracking.track({"epoch": epoch, "val_loss": 0.5})
    assert capsys.readouterr().err == f"warning: ADVLOOP_TRACK={name}: not tracked ({reason})\n"

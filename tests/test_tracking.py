"""What a stage of training shows live, and that no output of it knows whether it did."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from stage_folder import StageFolder

from advloop import tracking

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_open", {})
    monkeypatch.delenv(tracking.VARIABLE, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What stand-ins of both packages were called with."""
    made: list[Any] = []

    def init(**about: Any) -> Any:
        made.append(("init", about))
        return SimpleNamespace(log=lambda v, step: made.append((step, v)), finish=list)

    mlflow = SimpleNamespace(
        set_experiment=lambda name: made.append(("experiment", name)),
        start_run=lambda run_name: made.append(("run", run_name)),
        log_metrics=lambda values, step: made.append((step, values)),
        end_run=list,
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]  # stands in
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)  # type: ignore[arg-type]  # stands in
    monkeypatch.setenv("DVC_STAGE", "train_disc@0")
    monkeypatch.setenv("DVC_EXP_NAME", "bold-cat")
    return made


def test_tensorboard_has_every_value_of_every_epoch_and_the_outputs_the_same_bytes(
    stages: StageFolder,
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert stages.run("train_disc").status == 0
    plain = stages.made()
    assert not (stages.root / tracking.FOLDER).exists()  # off by default

    shutil.rmtree(stages.root / "made")
    stages.patch.setenv(tracking.VARIABLE, "tensorboard")
    stages.patch.setenv("DVC_STAGE", "train_disc@1")
    assert stages.run("train_disc").status == 0
    assert stages.made() == plain
    events = accumulator.EventAccumulator(
        str(stages.root / tracking.FOLDER / "workspace/train_disc@1")
    )
    events.Reload()
    (path,) = (stages.root / "made").rglob("discriminator_history.csv")
    history = path.read_text().splitlines()
    columns, rows = history[0].split(","), [line.split(",") for line in history[1:]]
    assert set(events.Tags()["scalars"]) == set(columns) - {"epoch"}
    for scalar in events.Scalars("val_loss"):
        value = rows[scalar.step - 1][columns.index("val_loss")]
        assert scalar.value == pytest.approx(float(value), rel=1e-5)
    assert len(events.Scalars("val_loss")) == len(rows)


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("wandb", [("init", {"project": "advloop", "group": "bold-cat", "name": "train_disc@0"})]),
        ("mlflow", [("experiment", "advloop"), ("run", "bold-cat/train_disc@0")]),
    ],
)
def test_a_run_is_opened_once_and_gets_each_epoch(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, name: str, opened: list[Any]
) -> None:
    monkeypatch.setenv(tracking.VARIABLE, name)
    for epoch in (1, 2):
        tracking.track({"epoch": epoch, "val_loss": 0.5 / epoch})
    assert calls == [*opened, (1, {"val_loss": 0.5}), (2, {"val_loss": 0.25})]


@pytest.mark.parametrize(
    ("name", "says"), [("tensorbord", "known: tensorboard, wandb, mlflow"), ("wandb", "no network")]
)
def test_a_tracker_that_fails_is_one_warning_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    says: str,
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))  # type: ignore[arg-type]  # stands in
    monkeypatch.setenv(tracking.VARIABLE, name)
    for epoch in (1, 2):
        tracking.track({"epoch": epoch, "val_loss": 0.5})
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == said.count("warning: ADVLOOP_TRACK=") == 1

"""Stage train_disc with all that its fake class and its training can be given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import REPO
from omegaconf import OmegaConf

import train_disc
from advloop.core.io import save_torch
from advloop.discriminator import load_discriminator
from advloop.manifest import write_manifest

ALL_ON = {
    "discriminator": {"channels": [8], "noise_conditioned": True},
    "train_disc": {
        "epochs": 3,
        "batch_size": 16,
        "predicted_fraction": 0.25,
        "replay_fraction": 0.5,
        "r1_weight": 0.1,
    },
}
N, SHAPE = 50, (4, 8, 8)


class Workspace:
    """A folder with what generate and encode wrote, in which the stage runs in this process."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        patch.chdir(root)
        patch.setenv("ADVLOOP_DEVICE", "cpu")
        stream = torch.Generator().manual_seed(0)
        for name in ("real", "fake", "predicted"):
            save_torch(root / f"{name}.pt", torch.randn(N, *SHAPE, generator=stream))
        sides = ["val" if k % 5 == 0 else "train" for k in range(N)]
        write_manifest(root / "real.csv", [(f"{k}.png", "g", sides[k]) for k in range(N)])

    def run(self, iteration: int, changes: dict[str, Any], replay: str = "no_such.pt") -> Path:
        params = OmegaConf.load(REPO / "params.yaml")
        OmegaConf.set_struct(params, True)
        OmegaConf.save(OmegaConf.merge(params, changes), self.root / "params.yaml")
        out = self.root / f"iter_{iteration}"
        argv = ["train_disc.py", "--iteration", str(iteration), "--replay", replay]
        argv += ["--real", "real.pt", "--manifest", "real.csv", "--latents", "latents"]
        argv += ["--fake", "fake.pt"]
        argv += ["--predicted", "predicted.pt", "--out", str(out)]
        argv += ["--metrics", str(out / "metrics.json")]
        self.patch.setattr("sys.argv", argv)
        train_disc.main()
        return out


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return Workspace(tmp_path, monkeypatch)


def buffer_of(out: Path) -> torch.Tensor:
    loaded = torch.load(out / "replay_latents.pt", weights_only=True)
    assert isinstance(loaded, torch.Tensor)
    return loaded


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_two_iterations_mix_predictions_and_earlier_fakes_and_hand_the_buffer_on(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    first = workspace.run(0, ALL_ON)
    assert "training fakes: 30 samples, 10 predicted, 0 replayed" in capsys.readouterr().out
    assert buffer_of(first).shape == (N, *SHAPE)
    later = torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(9))
    save_torch(workspace.root / "fake.pt", later)
    second = workspace.run(1, ALL_ON, str(first / "replay_latents.pt"))
    assert "training fakes: 10 samples, 10 predicted, 20 replayed" in capsys.readouterr().out
    kept = torch.isin(buffer_of(second)[:, 0, 0, 0], later[:, 0, 0, 0])
    assert (int(kept.sum()), len(kept)) == (N // 2, N)
    assert load_discriminator(second / "discriminator_best.pt", SHAPE[0]).noise_conditioned


def test_the_same_inputs_give_the_same_bytes_with_everything_on(workspace: Workspace) -> None:
    first = files_of(workspace.run(0, ALL_ON))
    assert set(first) == {
        "discriminator_best.pt",
        "discriminator_final.pt",
        "discriminator_history.csv",
        "metrics.json",
        "replay_latents.pt",
    }
    assert files_of(workspace.run(0, ALL_ON)) == first


def test_what_is_off_is_not_read_and_no_fake_is_kept_for_later(workspace: Workspace) -> None:
    (workspace.root / "predicted.pt").unlink()
    out = workspace.run(1, {"train_disc": {"epochs": 1}})
    assert buffer_of(out).shape == (0, *SHAPE)
    assert (out / "replay_latents.pt").stat().st_size < 5000  # a view would hold all fakes


def test_history_and_metrics_hold_the_viability_of_the_validation_fakes(
    workspace: Workspace,
) -> None:
    out = workspace.run(0, {"train_disc": {"epochs": 2}})
    rows = pd.read_csv(out / "discriminator_history.csv")
    assert rows.columns[-1] == "val_viability"
    metrics = json.loads((out / "metrics.json").read_text())
    best = rows["val_viability"][metrics["best_epoch"] - 1]
    assert metrics["val_viability"] == pytest.approx(best, abs=1e-6)


def test_an_early_stop_is_told_with_its_reason_and_shortens_the_history(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = torch.load(workspace.root / "fake.pt", weights_only=True)
    save_torch(workspace.root / "fake.pt", fake + 1)
    changes = {"train_disc": {"epochs": 30, "learning_rate": 1e-2, "stop_accuracy": 0.8}}
    rows = pd.read_csv(workspace.run(0, changes) / "discriminator_history.csv")
    assert len(rows) < 30
    assert rows["val_accuracy"].iloc[-1] >= 0.8
    assert (rows["val_accuracy"].iloc[:-1] < 0.8).all()
    told = f"Stopped after epoch {len(rows)}/30: validation accuracy "
    told += f"{rows['val_accuracy'].iloc[-1]:.4f} reached train_disc.stop_accuracy=0.8\n"
    assert told in capsys.readouterr().out


def test_a_training_that_ends_by_itself_tells_of_no_stop(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.run(0, {"train_disc": {"epochs": 2}})
    shown = capsys.readouterr().out
    assert "Epoch 2/2: " in shown
    assert "Stopped" not in shown
    assert "training fakes" not in shown

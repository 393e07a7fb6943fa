"""Stage train_disc with everything that its fakes and its training can be given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from stage_folder import DISC, FAKE, LISTED, PREDICTED, REAL, REPLAY, Outcome, StageFolder

from advloop.core.files import save_torch
from advloop.data.dataset import write_manifest
from advloop.models.discriminator import load_discriminator

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

ALL_ON = {
    "discriminator": {"noise_conditioned": True},
    "train_disc": {"epochs": 3, "batch_size": 16, "replay_fraction": 0.5, "r1_weight": 0.1},
}
PLAIN = {"train_disc": {"epochs": 2, "predicted_fraction": 0.0, "replay_fraction": 0.0}}
N, SHAPE = 50, (4, 8, 8)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def place(stages: StageFolder) -> StageFolder:
    """A folder with random reals, fakes and predictions."""
    for seed, path in enumerate((REAL, FAKE, PREDICTED)):
        save_torch(stages.root / path, noise(seed))
    sides = ["val" if k % 5 == 0 else "train" for k in range(N)]
    write_manifest(stages.root / LISTED, [(f"{k}.png", "g", sides[k]) for k in range(N)])
    return stages


def train(place: StageFolder, iteration: int, changes: dict[str, Any]) -> Outcome:
    place.set(changes)
    return place.must(
        "train_disc", iteration=iteration, replay=REPLAY if iteration else None, out="made"
    )


def buffer(place: StageFolder) -> torch.Tensor:
    loaded = torch.load(place.root / "made/replay_latents.pt", weights_only=True)
    assert isinstance(loaded, torch.Tensor)
    return loaded


def test_two_iterations_mix_predictions_and_earlier_fakes_and_hand_the_buffer_on(
    place: StageFolder,
):
    first = train(place, 0, ALL_ON)
    assert "training fakes: 30 samples, 10 predicted, 0 replayed" in first.out
    assert buffer(place).shape == (N, *SHAPE)
    save_torch(place.root / REPLAY, buffer(place))
    save_torch(place.root / FAKE, later := noise(9))
    second = train(place, 1, ALL_ON)
    assert "training fakes: 10 samples, 10 predicted, 20 replayed" in second.out
    kept = torch.isin(buffer(place)[:, 0, 0, 0], later[:, 0, 0, 0])
    assert (int(kept.sum()), len(kept)) == (N // 2, N)
    assert load_discriminator(Path("made") / Path(DISC).name, SHAPE[0]).noise_conditioned


def test_the_same_inputs_give_the_same_bytes_with_everything_on(place: StageFolder):
    train(place, 0, ALL_ON)
    first = place.made()
    assert set(first) == {
        "discriminator_best.pt",
        "discriminator_final.pt",
        "discriminator_history.csv",
        "metrics.json",
        "replay_latents.pt",
    }
    train(place, 0, ALL_ON)
    assert place.made() == first


def test_what_is_off_is_not_read_and_no_fake_is_kept_for_later(place: StageFolder):
    for path in (PREDICTED, REPLAY):
        (place.root / path).unlink()
    train(place, 1, PLAIN)
    assert buffer(place).shape == (0, *SHAPE)
    assert len(place.made()["replay_latents.pt"]) < 5000  # a view would save all fakes


def test_history_and_metrics_hold_the_viability_of_the_validation_fakes(place: StageFolder):
    train(place, 0, PLAIN)
    rows = pd.read_csv("made/discriminator_history.csv")
    assert rows.columns[-1] == "val_viability"
    metrics = json.loads(place.made()["metrics.json"])
    best = rows["val_viability"][metrics["best_epoch"] - 1]
    assert metrics["val_viability"] == pytest.approx(best, abs=1e-6)


def test_an_early_stop_is_printed_with_its_reason_and_shortens_the_history(place: StageFolder):
    save_torch(place.root / FAKE, noise(1) + 1)
    settings = {"epochs": 30, "learning_rate": 1e-2, "stop_accuracy": 0.8}
    outcome = train(place, 0, {"train_disc": PLAIN["train_disc"] | settings})
    accuracy = pd.read_csv("made/discriminator_history.csv")["val_accuracy"]
    assert len(accuracy) < 30
    assert accuracy.iloc[-1] >= 0.8
    assert (accuracy.iloc[:-1] < 0.8).all()
    assert (
        f"Stopped after epoch {len(accuracy)}/30: validation accuracy {accuracy.iloc[-1]:.4f} "
        "reached train_disc.stop_accuracy=0.8\n"
    ) in outcome.out


def test_a_training_to_the_last_epoch_mentions_no_stop_and_no_other_fakes(place: StageFolder):
    outcome = train(place, 0, PLAIN)
    assert "Epoch 2/2: " in outcome.out
    assert "Stopped" not in outcome.out
    assert "training fakes" not in outcome.out

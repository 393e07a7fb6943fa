"""Objective neon: the extrapolated weights, what they are trained on, and what a round hands on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from killed import Killed, die_after_snapshots
from objective_files import objective_params
from small_diffusion import copy_weights, equal
from stage_folder import FAKE, MODEL, ROUND, StageFolder
from tiny_unet import CONFIG

from advloop.data.shares import held_out_fakes
from advloop.models.denoiser import build_denoiser
from advloop.objectives.neon import extrapolate

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

MADE = f"made/{ROUND}/model"
SHORT = [
    "objective=neon",
    "train_diffusion.epochs=3",
    "train_diffusion.samples_per_epoch=32",
    "train_diffusion.batch_size=16",
    "train_diffusion.warmup_steps=1",
]


# --- the formula ---


def test_weights_are_those_worked_out_by_hand():
    start, tuned = build_denoiser(CONFIG, seed=0), build_denoiser(CONFIG, seed=0)
    for network, value in ((start, 3.0), (tuned, 2.0)):
        for theta in network.parameters():
            theta.data.fill_(value)
    found = extrapolate(objective_params("neon", weight=0.5), start, tuned)
    assert {float(theta) for p in found.parameters() for theta in p.flatten()} == {3.5}


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0, 2.5])
def test_every_weight_is_extrapolated_and_both_models_stay_as_they_are(w: float):
    start, tuned = build_denoiser(CONFIG, seed=0), build_denoiser(CONFIG, seed=1)
    before = copy_weights(start), copy_weights(tuned)
    found = extrapolate(objective_params("neon", weight=w), start, tuned)
    theirs = zip(found.parameters(), start.parameters(), tuned.parameters(), strict=True)
    assert all(torch.equal(p, (1 + w) * s - w * t) for p, s, t in theirs)
    assert equal(copy_weights(start), before[0])
    assert equal(copy_weights(tuned), before[1])
    assert not any(p.requires_grad for p in found.parameters())
    assert not found.training


# --- one round of the stage ---


def tune(stages: StageFolder, *overrides: str) -> dict[str, bytes]:
    """What train_diffusion writes; its files are then out of the way of the next run."""
    stages.compose(*SHORT, *overrides)
    stages.must("train_diffusion", discriminator=None)
    made = stages.made()
    shutil.rmtree("made")
    return {name.removeprefix(f"{ROUND}/model/"): content for name, content in made.items()}


def weights(path: str | Path, kind: str = "ema") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)[kind]
    return found


def shift(path: str, rows: slice) -> None:
    latents = torch.load(path, weights_only=True)
    latents[rows] += 0.1
    torch.save(latents, path)


def test_no_real_latent_and_no_held_out_fake_is_trained_on(stages: StageFolder):
    count = held_out_fakes(len(torch.load(FAKE, weights_only=True)))
    checkpoints = ("checkpoint_best.pt", "checkpoint_latest.pt")
    first = tune(stages)
    for path, rows, same in (
        ("latents/train.pt", slice(None), True),
        ("latents/val.pt", slice(None), True),  # nor do they choose an epoch
        (FAKE, slice(count), True),
        (FAKE, slice(count, count + 1), False),
    ):
        shift(path, rows)
        found = tune(stages)
        assert all((found[name] == first[name]) == same for name in checkpoints), (path, rows)


def test_weight_zero_hands_on_the_starting_model(stages: StageFolder):
    stages.compose(*SHORT, "objective.weight=0.0")
    stages.must("train_diffusion", discriminator=None)
    for name in ("checkpoint_best.pt", "checkpoint_latest.pt"):
        assert equal(weights(f"{MADE}/{name}"), weights(MODEL))
    assert not equal(weights(f"{MADE}/checkpoint_latest.pt", "model"), weights(MODEL))
    rows = pd.read_csv(f"{MADE}/metrics.csv")
    assert rows["noise_loss"].nunique() == len(rows) == 3, "of the model that is tuned"
    assert rows["val_noise_loss"].nunique() == 1, "of the model that is handed on"


def test_step_back_is_as_many_times_longer_as_the_weight_says(stages: StageFolder):
    start, steps = weights(MODEL), []
    for w in (1.0, 3.0):
        stages.compose(*SHORT, f"objective.weight={w}")
        stages.must("train_diffusion", discriminator=None)
        handed_on = weights(f"{MADE}/checkpoint_best.pt")
        steps.append({name: handed_on[name] - start[name] for name in start})
    for name, one in steps[0].items():
        torch.testing.assert_close(steps[1][name], 3 * one, rtol=1e-3, atol=1e-5)


def test_last_epoch_is_handed_on_although_validation_loss_rises(stages: StageFolder):
    stages.compose(*SHORT, "objective.weight=30.0")
    stages.must("train_diffusion", discriminator=None)
    rows = pd.read_csv(f"{MADE}/metrics.csv")
    assert rows["val_loss"].idxmin() != 2
    assert json.loads(Path(f"{MADE}/metrics.json").read_text())["epoch"] == 3
    best, latest = (weights(f"{MADE}/checkpoint_{name}.pt") for name in ("best", "latest"))
    assert equal(best, latest)


def test_round_killed_after_every_epoch_ends_with_the_bytes_of_an_undisturbed_one(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    whole = tune(stages)
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    with monkeypatch.context() as patched:
        die_after_snapshots(patched)
        for _ in range(3):
            with pytest.raises(Killed):
                stages.run("train_diffusion", discriminator=None)
            shutil.rmtree("made")  # as DVC does before it runs a stage
    assert tune(stages) == whole

"""Objective adversarial: its formula, and what a round of the stages makes of it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from killed import Killed, die_after_snapshots
from stage_folder import ROUND, StageFolder

from advloop.objectives.adversarial import judge

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

MADE = f"made/{ROUND}/model"
DISC = f"{ROUND}/discriminator"
SHORT = [
    "objective=adversarial",
    "discriminator.channels=[8]",
    "generate.num_inference_steps=2",
    "objective.samples_per_step=4",
    "objective.recent_fakes=12",
    "objective.discriminator_steps=2",
    "objective.max_discriminator_steps=3",
    "train_diffusion.epochs=3",
    "train_diffusion.samples_per_epoch=32",
    "train_diffusion.batch_size=16",
    "train_diffusion.warmup_steps=1",
]


# --- the formula ---


def test_generator_loss_margin_and_viability_are_those_worked_out_by_hand():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0], requires_grad=True)
    loss, terms = judge(real, fake)
    expected = (math.log1p(math.exp(1)) + math.log1p(math.exp(3))) / 2
    assert float(terms["generator_loss"]) == pytest.approx(expected)
    assert float(terms["margin"]) == 2.0
    assert float(terms["viability_score"]) == pytest.approx(1 / (1 + math.exp(1)))
    (gradient,) = torch.autograd.grad(loss, fake)
    sigmoid = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3))]
    assert gradient.tolist() == pytest.approx([-value / 2 for value in sigmoid])
    assert not any(value.requires_grad for value in terms.values())


# --- rounds of the stages ---


@pytest.fixture
def played(stages: StageFolder) -> StageFolder:
    """A folder with the discriminator of the round."""
    stages.compose(*SHORT)
    stages.must("train_disc", iteration=0, replay=None)
    stages.keep()
    return stages


def play(stages: StageFolder, *overrides: str) -> dict[str, bytes]:
    """What train_diffusion writes; its files are then out of the way of the next run."""
    stages.compose(*SHORT, *overrides)
    stages.must("train_diffusion", discriminator=f"{DISC}/discriminator_best.pt")
    made = stages.made()
    shutil.rmtree("made")
    return {name.removeprefix(f"{ROUND}/model/"): content for name, content in made.items()}


def test_discriminator_is_trained_on_pairs_and_sees_statistics(played: StageFolder):
    config = torch.load(f"{DISC}/discriminator_best.pt", weights_only=True)["config"]
    assert config["statistics_size"] == 4
    rows = pd.read_csv(f"{DISC}/discriminator_history.csv")
    assert rows.notna().all(axis=None)
    played.set({"train_disc": {"loss": "bce", "r2_weight": 0.0}})
    played.must("train_disc", iteration=0, replay=None)
    other = pd.read_csv(f"made/{DISC}/discriminator_history.csv")
    assert (rows["train_loss"] != other["train_loss"]).all()


def test_round_killed_after_every_epoch_ends_with_the_bytes_of_an_undisturbed_one(
    played: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    whole = play(played)
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    with monkeypatch.context() as patched:
        die_after_snapshots(patched)
        for _ in range(3):
            with pytest.raises(Killed):
                played.run("train_diffusion", discriminator=f"{DISC}/discriminator_best.pt")
            shutil.rmtree("made")  # as DVC does before it runs a stage
    assert play(played) == whole


def test_last_epoch_is_handed_on_with_samples_of_it(played: StageFolder):
    made = play(played)
    metrics = json.loads(made["metrics.json"])
    assert (metrics["epoch"], metrics["collapsed"]) == (3, 0)
    assert "samples/epoch_003_samples.png" in made


def test_collapse_is_said_in_one_line_and_ends_the_round_with_all_its_files(played: StageFolder):
    """Every gradient counts as none: after three steps nothing has been learnt."""
    played.compose(*SHORT, "objective.collapse_gradient=1e9", "objective.collapse_steps=3")
    best = f"{DISC}/discriminator_best.pt"
    outcome = played.must("train_diffusion", discriminator=best, model="base/checkpoint_best.pt")
    (line,) = [text for text in outcome.err.splitlines() if "collapsed" in text]
    assert line.startswith("warning: the discriminator collapsed: after step 0, ")
    assert len(pd.read_csv(f"{MADE}/metrics.csv")) == 2
    metrics = json.loads(Path(f"{MADE}/metrics.json").read_text())
    assert (metrics["epoch"], metrics["collapsed"]) == (2, 1)
    assert Path(f"{MADE}/samples/epoch_002_samples.png").exists()
    handed_on, start = (
        torch.load(path, weights_only=True)["ema"]
        for path in (f"{MADE}/checkpoint_best.pt", "base/checkpoint_best.pt")
    )
    assert all(torch.equal(handed_on[name], start[name]) for name in start)

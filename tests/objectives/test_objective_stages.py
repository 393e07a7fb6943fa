"""Every objective goes through one round of the stages at scale tiny, in this process."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from conftest import REPO
from omegaconf import OmegaConf
from stage_folder import MODEL, ROUND, StageFolder

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

OBJECTIVES = sorted(path.stem for path in (REPO / "conf/objective").glob("*.yaml"))
PLAY = {"discriminator_accuracy", "discriminator_steps", "penalty"}  # of training alone
PLAY |= {"discriminator_grad_norm", "sample_grad_norm"}
TERMS = {
    "adversarial": {"generator_loss", "viability_score", "margin"},
    "none": set(),
    "neon": set(),
    "ddo": {"ddo_loss"},
    "ddo_weighted": {"ddo_loss"},
    "seed": {"discriminator_loss", "viability_score"},
    "x0": {"discriminator_loss", "viability_score"},
}
# Some objectives set the lengths of a round, for every scale.
SHORT = ["train_diffusion.epochs=2", "train_diffusion.eval_interval=1"]
SHORT += ["train_diffusion.samples_per_epoch=32", "train_diffusion.warmup_steps=1"]
SHORT += ["generate.num_inference_steps=2", "discriminator.channels=[8]"]
RUN = {"epoch", "learning_rate", "loss", "grad_norm", "gradient_ratio", "noise_loss"}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_round_of_the_objective_ends_in_checkpoints_and_finite_terms(
    stages: StageFolder, objective: str
):
    own = ["objective.samples_per_step=8"] if objective == "adversarial" else []
    stages.compose(f"objective={objective}", *SHORT, *own)
    stages.must("train_disc", iteration=0, replay=None)
    disc = stages.root / "made" / ROUND / "discriminator/discriminator_best.pt"
    used = OmegaConf.load("params.yaml").objective.uses_discriminator
    conditions = torch.load(disc, weights_only=True)["config"]
    assert conditions.get("noise_conditioned", False) == (objective == "x0")
    (stages.root / ROUND / "discriminator/discriminator_best.pt").unlink()
    stages.must("train_diffusion", discriminator=disc if used else None)

    rows = pd.read_csv(stages.root / "made" / ROUND / "model/metrics.csv")
    terms = set(rows) - RUN - {name for name in rows if name.startswith("val_")}
    played = PLAY if objective == "adversarial" else set()
    assert terms == TERMS[objective] | played
    assert rows[sorted(played)].notna().all(axis=None)
    assert ("gradient_ratio" in rows) == (objective == "x0")
    for term in ("loss", "noise_loss", *TERMS[objective]):
        assert rows[[term, f"val_{term}"]].notna().all(axis=None)
    tuned, base = (
        torch.load(path, weights_only=True)["ema"]
        for path in (f"made/{ROUND}/model/checkpoint_best.pt", MODEL)
    )
    assert any(not torch.equal(tuned[name], base[name]) for name in base)

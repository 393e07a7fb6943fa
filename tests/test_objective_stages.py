"""Every objective goes through one round of the stages at scale tiny, in this process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import compose, make_project
from stage_runner import START, run_stage

from advloop.objectives.registry import OBJECTIVES

pytestmark = pytest.mark.xdist_group("objective_stages")  # one worker: the start is made once


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base model, its fakes and the reals of iteration 0."""
    project = make_project(tmp_path_factory.mktemp("objectives"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        for stage, options in START.items():
            run_stage(stage, options, monkeypatch)
    return project


def choose(project: Path, objective: str) -> None:
    config = project / "conf/config.yaml"
    lines = config.read_text().splitlines()
    chosen = [f"  - objective: {objective}" if "- objective:" in line else line for line in lines]
    config.write_text("\n".join(chosen) + "\n")
    compose(project)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_round_of_the_objective_ends_in_checkpoints_and_finite_terms(
    start: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(start)
    choose(start, objective)
    out = Path(f"round_{objective}")
    disc = {"real": "real_latents.pt", "manifest": "real_latents.csv", "fake": "fake_latents.pt"}
    disc |= {
        "latents": "latents",
        "predicted": "predicted_latents.pt",
        "replay": "no_earlier_iteration",
    }
    disc |= {"iteration": 0, "out": out, "metrics": out / "disc.json"}
    run_stage("train_disc", disc, monkeypatch)
    diffusion = {
        "iteration": 0,
        "model": "base/checkpoint_best.pt",
        "discriminator": out / "discriminator_best.pt",
        "fakes": "fake_latents.pt",
        "latents": "latents",
        "autoencoder": "autoencoder",
        "out": out,
        "metrics": out / "metrics.json",
    }
    run_stage("train_diffusion", diffusion, monkeypatch)
    rows = pd.read_csv(out / "metrics.csv")
    for term in ("noise_loss", "discriminator_loss", "viability_score"):
        assert rows[[term, f"val_{term}"]].notna().all(axis=None)
    assert ("gradient_ratio" in rows) == (objective == "x0")
    content = torch.load(out / "checkpoint_best.pt", weights_only=True)
    base = torch.load("base/checkpoint_best.pt", weights_only=True)
    assert any(not torch.equal(content["ema"][name], base["ema"][name]) for name in base["ema"])
    told = torch.load(out / "discriminator_best.pt", weights_only=True)["config"]
    assert told.get("noise_conditioned", False) == (objective == "x0")

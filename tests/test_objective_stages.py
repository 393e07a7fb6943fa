"""Every objective goes through one round of the stages at scale tiny, in this process."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import compose, make_project

from advloop.objectives.registry import OBJECTIVES

pytestmark = pytest.mark.xdist_group("objective_stages")  # one worker: the start is made once

START = {
    "prepare": {"out": "data"},
    "train_autoencoder": {"data": "data", "out": "autoencoder", "metrics": "autoencoder.json"},
    "encode_dataset": {"data": "data", "autoencoder": "autoencoder", "out": "latents"},
    "train_base": {
        "latents": "latents",
        "out": "base/checkpoint_best.pt",
        "metrics": "base/metrics.json",
        "history": "base/metrics.csv",
    },
    "generate": {
        "iteration": 0,
        "model": "base/checkpoint_best.pt",
        "latents": "latents",
        "out": "fake.pt",
        "predicted": "predicted.pt",
    },
    "encode": {
        "iteration": 0,
        "data": "data",
        "autoencoder": "autoencoder",
        "stats": "latents/stats.json",
        "out": "real.pt",
        "manifest": "real.csv",
    },
}


def run(stage: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    argv = [f"{stage}.py"]
    for option, value in options.items():
        argv += [f"--{option}", str(value)]
    monkeypatch.setattr("sys.argv", argv)
    importlib.import_module(stage).main()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base model, its fakes and the reals of iteration 0."""
    project = make_project(tmp_path_factory.mktemp("objectives"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        for stage, options in START.items():
            run(stage, monkeypatch, **options)
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
    disc = {"real": "real.pt", "manifest": "real.csv", "fake": "fake.pt"}
    disc |= {"predicted": "predicted.pt", "replay": "none.pt"}
    run("train_disc", monkeypatch, iteration=0, **disc, out=out, metrics=out / "disc.json")
    run(
        "train_diffusion",
        monkeypatch,
        iteration=0,
        model="base/checkpoint_best.pt",
        discriminator=out / "discriminator_best.pt",
        fakes="fake.pt",
        latents="latents",
        autoencoder="autoencoder",
        out=out,
        metrics=out / "metrics.json",
    )
    rows = pd.read_csv(out / "metrics.csv")
    for term in ("noise_loss", "discriminator_loss", "viability_score"):
        assert rows[[term, f"val_{term}"]].notna().all(axis=None)
    assert ("gradient_ratio" in rows) == (objective == "x0")
    content = torch.load(out / "checkpoint_best.pt", weights_only=True)
    base = torch.load("base/checkpoint_best.pt", weights_only=True)
    assert any(not torch.equal(content["ema"][name], base["ema"][name]) for name in base["ema"])
    told = torch.load(out / "discriminator_best.pt", weights_only=True)["config"]
    assert told.get("noise_conditioned", False) == (objective == "x0")

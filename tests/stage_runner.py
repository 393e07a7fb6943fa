"""Stage scripts in this process, and the arguments of those up to a round's end."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest

Stages = dict[str, dict[str, Any]]

START: Stages = {
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
        "out": "fake_latents.pt",
        "predicted": "predicted_latents.pt",
    },
    "encode": {
        "iteration": 0,
        "data": "data",
        "autoencoder": "autoencoder",
        "stats": "latents/stats.json",
        "out": "real_latents.pt",
        "manifest": "real_latents.csv",
    },
}

ROUND: Stages = {
    "train_disc": {
        "iteration": 0,
        "real": "real_latents.pt",
        "manifest": "real_latents.csv",
        "latents": "latents",
        "fake": "fake_latents.pt",
        "predicted": "predicted_latents.pt",
        "replay": "no_earlier_iteration",
        "out": "discriminator",
        "metrics": "discriminator/metrics.json",
    },
    "train_diffusion": {
        "iteration": 0,
        "model": "base/checkpoint_best.pt",
        "discriminator": "discriminator/discriminator_best.pt",
        "fakes": "fake_latents.pt",
        "latents": "latents",
        "autoencoder": "autoencoder",
        "out": "diffusion",
        "metrics": "diffusion/metrics.json",
    },
}


def run_stage(stage: str, options: Mapping[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """``main()`` of a stage's script."""
    argv = [f"{stage}.py"]
    for option, value in options.items():
        argv += [f"--{option}", str(value)]
    monkeypatch.setattr("sys.argv", argv)
    importlib.import_module(stage).main()

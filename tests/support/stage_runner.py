"""The stages up to a round's training, with their arguments, run in this process."""

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
    },
    "predict": {
        "iteration": 0,
        "model": "base/checkpoint_best.pt",
        "latents": "latents",
        "out": "predicted_latents.pt",
    },
    "encode": {
        "iteration": 0,
        "data": "data",
        "latents": "latents",
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
        "out": "discriminator",
    },
    "train_diffusion": {
        "iteration": 0,
        "model": "base/checkpoint_best.pt",
        "discriminator": "discriminator/discriminator_best.pt",
        "fakes": "fake_latents.pt",
        "latents": "latents",
        "autoencoder": "autoencoder",
        "out": "diffusion",
    },
}


def arguments(options: Mapping[str, object]) -> list[str]:
    """The words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def run_stage(stage: str, options: Mapping[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``main()`` of a stage's script in this process."""
    monkeypatch.setattr("sys.argv", [f"{stage}.py", *arguments(options)])
    importlib.import_module(stage).main()

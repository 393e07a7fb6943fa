"""All stages, once, with a transformer that is trained from scratch as a rectified flow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from card_code import code_blocks, run_code
from conftest import make_project
from stage_folder import MODEL, TUNED, StageFolder, run_all

from advloop.data.latents import read_scale
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import sample
from advloop.models.architectures import DIT
from advloop.models.autoencoder import load_autoencoder
from advloop.models.codec import Codec
from advloop.models.denoiser import load_checkpoint
from advloop.params.diffusion import read_diffusion
from advloop.params.loader import Params

OPTIONS = (
    "denoiser=dit",
    "diffusion=flow",
    "objective=adversarial",
    "objective.samples_per_step=4",
    "objective.gradient_steps=1",
    "generate.num_inference_steps=2",
    "train_diffusion.epochs=1",
    "train_diffusion.samples_per_epoch=32",
    "train_diffusion.warmup_steps=0",
    "evaluate.features=encoder",
)


def test_a_new_transformer_runs_the_whole_loop_as_a_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stages = StageFolder(make_project(tmp_path, iterations=1), monkeypatch)
    stages.compose(*OPTIONS)
    run_all(stages)
    for checkpoint in (MODEL, TUNED):
        assert (
            torch.load(stages.root / checkpoint, weights_only=True)["config"]["_class_name"] == DIT
        )
    # The folder of the chosen model loads with diffusers alone, and its card draws what this
    # project draws.
    final = stages.root / "made/final"
    selected = re.search("^selected: (.*)$", stages.must("select_model").out, re.M)
    assert selected
    index = json.loads((final / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", DIT]
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    model = load_checkpoint(stages.root / {"base": MODEL, "iter_0": TUNED}[selected[1]]).eval()
    noise = torch.randn(8, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    latents = sample(process_of(read_diffusion(Params.load())), model, noise, 2)
    scaling = read_scale(stages.root / "latents/stats.json")
    expected = Codec(load_autoencoder(stages.root / "autoencoder"), *scaling).decode(latents)
    (code,) = code_blocks((final / "README.md").read_text())
    sampled = run_code(code, final, monkeypatch)
    assert np.abs(sampled.astype(int) - expected.astype(int)).max() <= 1

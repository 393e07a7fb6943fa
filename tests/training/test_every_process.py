"""Each objective fine-tunes each kind of process: what the loops use of them fits together."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from objective_files import FILES, objective_params
from small_diffusion import CPU, copy_weights, equal, make_setup, run
from small_opponent import make_opponent, play_setup
from small_params import EDM, FLOW, diffusion_params
from tiny_unet import CONFIG

from advloop.core.random import seeded
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.models.denoiser import Denoiser, build_unet, frozen_copy
from advloop.models.discriminator import Discriminator
from advloop.objectives import recipe_of
from advloop.training.batches import Side
from advloop.training.diffusion import Setup

PROCESSES = {
    "v": diffusion_params(),
    "epsilon": diffusion_params("epsilon", "linear"),
    "zero snr": diffusion_params("sample", "scaled_linear", zero_terminal_snr=True),
    "flow": FLOW,
    "edm": EDM,
}


def setup_of(file: str, process: str, model: Denoiser) -> Setup:
    """One epoch of one step, as stage train_diffusion makes it of an objective's file."""
    params = objective_params(file)
    recipe = recipe_of(params.name)
    with seeded(0, "discriminator"):
        judge = Discriminator(4, [8], 0.0, noise_conditioned=file == "x0")
    criterion = Criterion(
        objective=recipe.make(params),
        weight=params.weight,
        discriminator=judge.requires_grad_(False).eval() if params.uses_discriminator else None,
        process=process_of(PROCESSES[process]),
        precision="fp32",
        device=CPU,
        reference=frozen_copy(model) if recipe.against_reference else None,
    )
    short = {"epochs": 1, "batch_size": 4}
    if file == "adversarial":
        opponent = make_opponent(num_inference_steps=2, gradient_steps=1)
        opponent.criterion = criterion
        return play_setup(opponent, samples_per_epoch=4, **short)
    fakes, val_fakes = (Side(torch.randn(4, 4, 8, 8)) for _ in range(2))
    return replace(
        make_setup(criterion, rows=4, **short),
        fakes=fakes if recipe.against_reference else None,
        val_fakes=val_fakes if recipe.against_reference else None,
        adaptive=recipe.adaptive(params) if recipe.adaptive else None,
        merge=partial(recipe.merge, params, frozen_copy(model)) if recipe.merge else None,
    )


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("file", FILES)
def test_every_objective_trains_in_every_process(file, process):
    model = build_unet(CONFIG, seed=0)
    before = copy_weights(model)
    (row,), (trained,), _ = run(setup_of(file, process, model), model)
    assert not equal(before, trained)
    assert all(math.isfinite(value) for value in row.values())
    assert row["val_loss"] > 0
    # the network starts near 0, and each process has targets of about unit size
    assert 0.1 < row["noise_loss"] < 10

"""Each objective fine-tunes each kind of denoiser in each kind of process: all of it fits."""

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
from tiny_denoisers import DENOISERS, tiny_denoiser

from advloop.core.random import seeded
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.models.denoiser import Denoiser, frozen_copy
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
    params, classes = objective_params(file), model.num_classes
    judged = 0 if model.captions else classes
    recipe = recipe_of(params.name)
    with seeded(0, "discriminator"):
        judge = Discriminator(4, [8], 0.0, noise_conditioned=file == "x0", num_classes=judged)
    criterion = Criterion(
        objective=recipe.make(params),
        weight=params.weight,
        discriminator=judge.requires_grad_(False).eval() if params.uses_discriminator else None,
        process=process_of(PROCESSES[process]),
        precision="fp32",
        device=CPU,
        reference=frozen_copy(model) if recipe.against_reference else None,
        null_label=model.null_label,
    )
    short = {"epochs": 1, "batch_size": 4}
    if file == "adversarial":
        opponent = make_opponent(classes, num_inference_steps=2, gradient_steps=1)
        opponent.criterion = criterion
        return play_setup(opponent, samples_per_epoch=4, **short)
    setup = make_setup(criterion, rows=4, **short)
    side = Side(setup.train.latents, torch.arange(4) % classes if classes else None)
    return replace(
        setup,
        train=side,
        val=side,
        fakes=side if recipe.against_reference else None,
        val_fakes=side if recipe.against_reference else None,
        adaptive=recipe.adaptive(params) if recipe.adaptive else None,
        merge=partial(recipe.merge, params, frozen_copy(model)) if recipe.merge else None,
    )


# Every objective with every process, and every process with every denoiser.
PAIRS = [
    (file, process, list(DENOISERS)[(i + j) % len(DENOISERS)])
    for i, file in enumerate(FILES)
    for j, process in enumerate(PROCESSES)
]


@pytest.mark.parametrize(("file", "process", "denoiser"), PAIRS)
def test_every_objective_trains_every_denoiser_in_every_process(file, process, denoiser):
    model = tiny_denoiser(denoiser)
    before = copy_weights(model)
    (row,), (trained,), _ = run(setup_of(file, process, model), model)
    assert all(math.isfinite(value) for value in row.values())
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert moved, "nothing was learnt"
    assert not any(name.startswith("sigma_") for name in moved)
    assert equal(copy_weights(tiny_denoiser(denoiser)), before)

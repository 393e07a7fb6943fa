"""What each process of test_distributed.py does, and what one process alone does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from objective_files import FILES, objective_params
from small_diffusion import copy_weights, make_setup
from small_opponent import make_opponent, play_setup
from small_params import diffusion_params
from stage_runner import ROUND, START, run_stage
from tiny_unet import CONFIG

from advloop.core.distributed import barrier, join, leave, map_across_processes, sum_gradients
from advloop.core.files import save_torch
from advloop.core.processes import launch_variables
from advloop.core.random import generator, seeded
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.models.denoiser import Denoiser, build_denoiser, frozen_copy
from advloop.models.discriminator import Discriminator
from advloop.objectives import recipe_of
from advloop.objectives.neon import extrapolate
from advloop.training.diffusion import train_diffusion

STAGES = {
    stage: options
    for stage, options in (START | ROUND).items()
    if stage not in ("prepare", "train_autoencoder")
}
SETTINGS: dict[str, dict[str, float]] = {
    "x0": {"weight": 1.0, "ramp_steps": 1},
    "ddo": {"weight": 1.0, "beta": 3.0},
    "ddo_weighted": {"weight": 1.0, "beta": 3.0},
}
ROWS = 5  # no multiple of any number of processes


def loss_and_gradients(file: str) -> dict[str, torch.Tensor]:
    """Every term and every parameter's gradient of one step of an objective."""
    params = objective_params(file, **SETTINGS.get(file, {}))
    recipe = recipe_of(params.name)
    model = build_denoiser(CONFIG, seed=0)
    discriminator = None
    if params.uses_discriminator:
        with seeded(0, "discriminator"):
            noise_conditioned = file == "x0"  # its re-noising mixes the rows of the batch
            discriminator = Discriminator(4, [8], 0.0, noise_conditioned)
        discriminator.requires_grad_(False).eval()
    criterion = Criterion(
        objective=recipe.make(params),
        weight=1.0,
        discriminator=discriminator,
        process=process_of(diffusion_params()),
        precision="fp32",
        device=torch.device("cpu"),
        reference=frozen_copy(build_denoiser(CONFIG, seed=1)) if recipe.against_reference else None,
    )
    stream = generator(0, "batch")
    noised = [
        (
            torch.randn((ROWS, 4, 8, 8), generator=stream),
            torch.randn((ROWS, 4, 8, 8), generator=stream),
            torch.tensor([10, 300, 80, 900, 150]),
        )
        for _ in range(2)
    ]
    fake = noised[1] if recipe.against_reference else None
    loss, terms = criterion(model, *noised[0], fake=fake)
    loss.backward()
    sum_gradients(model.parameters())
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **terms, **gradients}


def extrapolated() -> dict[str, torch.Tensor]:
    """The validation losses of a small training under neon, and the weights that it hands on."""
    params, start = objective_params("neon"), frozen_copy(build_denoiser(CONFIG, seed=0))
    handed_on: dict[str, torch.Tensor] = {}

    def merge(average: Denoiser) -> Denoiser:
        model = extrapolate(params, start, average)
        handed_on.update(copy_weights(model))  # on_epoch runs in the main process alone
        return model

    setup = replace(make_setup(rows=ROWS), merge=merge)
    rows = train_diffusion(setup, build_denoiser(CONFIG, seed=0), list, lambda *_: None)
    return {"val_loss": torch.tensor([row["val_loss"] for row in rows]), **handed_on}


def played() -> dict[str, torch.Tensor]:
    """The history of a small play against a discriminator, and the weights of both."""
    opponent, model = make_opponent(), build_denoiser(CONFIG, seed=0)
    rows = train_diffusion(play_setup(opponent), model, list, lambda *_: None)
    history = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return {**history, **copy_weights(model), **copy_weights(opponent.discriminator)}


def adapted() -> dict[str, torch.Tensor]:
    """The history of a small training of an adapter, and the weights beside which it stands."""
    model = build_denoiser(CONFIG, seed=0)
    model.add_adapter(2, 0, "adapter")
    rows = train_diffusion(make_setup(rows=ROWS), model, list, lambda *_: None)
    history = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return {**history, **copy_weights(model)}


def mapped() -> dict[str, torch.Tensor]:
    """The results of three jobs for two processes, the last job shorter than the others."""
    jobs = [range(0, 3), range(3, 6), range(6, 8)]
    parts = map_across_processes(lambda job: torch.tensor(job)[:, None] * 10.0, jobs)
    return {str(k): part for k, part in enumerate(parts)}


def work(rank: int, count: int, project: Path, port: int) -> None:
    """Run every stage of a round in ``project``, and one step of every objective."""
    os.environ |= launch_variables(rank, count, port) | {"ADVLOOP_DEVICE": "cpu"}
    torch.set_num_threads(1)
    join()
    os.chdir(project)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for stage, options in STAGES.items():
            run_stage(stage, options, monkeypatch)
            barrier()  # the next stage reads what the main process has written
    steps = {name: loss_and_gradients(name) for name in FILES}
    trainings = {"extrapolated": extrapolated(), "played": played(), "adapted": adapted()}
    save_torch(Path(f"rank_{rank}.pt"), {"steps": steps, **trainings, "mapped": mapped()})
    leave()

"""What one of several processes does for test_ranks.py, and one alone for comparison."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from stage_runner import ROUND, START, run_stage
from tiny_unet import CONFIG

from advloop.core import ranks
from advloop.core.io import save_torch
from advloop.core.runtime import generator, seeded
from advloop.criterion import Criterion
from advloop.discriminator import Discriminator
from advloop.objectives.registry import OBJECTIVES
from advloop.params.diffusion import DiffusionParams
from advloop.params.objectives import OBJECTIVES as PARAMS
from advloop.unet import build_unet, frozen_copy

STAGES = {
    stage: options
    for stage, options in (START | ROUND).items()
    if stage not in ("prepare", "train_autoencoder")
}
DDO = {"weight": 1.0, "alpha": 1.0, "beta": 3.0}
SETTINGS: dict[str, dict[str, float]] = {
    "none": {},
    "seed": {"weight": 1.0},
    "x0": {"weight": 1.0, "min_alpha_bar": 0.5, "max_gradient_ratio": 0.5, "ramp_steps": 1},
    "ddo": DDO,
    "ddo_weighted": DDO,
}
ROWS = 5  # no multiple of any number of processes


def loss_and_gradients(name: str) -> dict[str, torch.Tensor]:
    """Of one step of an objective: every term, and the gradient of every parameter."""
    params = PARAMS[name](name=name, **SETTINGS[name])
    recipe = OBJECTIVES[name]
    model = build_unet(CONFIG, seed=0)
    with seeded(0, "discriminator"):
        conditioned = name == "x0"  # its re-noising mixes the rows of the batch
        discriminator = Discriminator(4, [8], 0.0, conditioned).requires_grad_(False).eval()
    criterion = Criterion(
        objective=recipe.make(params),
        weight=1.0,
        discriminator=discriminator,
        diffusion=DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction"),
        precision="fp32",
        where=torch.device("cpu"),
        reference=frozen_copy(build_unet(CONFIG, seed=1)) if recipe.against_reference else None,
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
    ranks.sum_gradients(model.parameters())
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **terms, **gradients}


def answers() -> dict[str, torch.Tensor]:
    """What ``in_turns`` gives for jobs whose last one is shorter and whose last turn is, too."""
    jobs = [range(0, 3), range(3, 6), range(6, 8)]
    parts = ranks.in_turns(jobs, lambda job: torch.tensor(job)[:, None] * 10.0)
    return {str(k): part for k, part in enumerate(parts)}


def work(index: int, count: int, project: Path, port: int) -> None:
    """Every stage of a round in ``project``, and one step of every objective."""
    here = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {k: str(v) for k, v in here.items()} | {"MASTER_ADDR": "127.0.0.1"}
    os.environ["ADVLOOP_DEVICE"] = "cpu"
    torch.set_num_threads(1)
    ranks.join()
    os.chdir(project)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for stage, options in STAGES.items():
            run_stage(stage, options, monkeypatch)
            ranks.barrier()  # the next one reads what the leader has written
    steps = {name: loss_and_gradients(name) for name in OBJECTIVES}
    save_torch(Path(f"rank_{index}.pt"), {"steps": steps, "answers": answers()})
    ranks.leave()

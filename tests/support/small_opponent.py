"""A tiny play: a diffusion model against a discriminator that goes on learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from objective_files import objective_params
from small_diffusion import CPU, make_setup
from small_params import diffusion_params

from advloop.core.random import seeded
from advloop.diffusion.batch import noise_only
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.models.discriminator import Discriminator
from advloop.objectives.adversarial import judge
from advloop.training.batches import Side
from advloop.training.diffusion import Setup
from advloop.training.opponent import Opponent

SMALL = {
    "num_inference_steps": 3,
    "samples_per_step": 3,
    "recent_fakes": 8,
    "discriminator_steps": 2,
    "max_discriminator_steps": 4,
    "collapse_gradient": 0.0,
}
SHAPE = (4, 8, 8)


def side(seed: int, rows: int, num_classes: int = 0) -> Side:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % num_classes if num_classes else None
    return Side(torch.randn(rows, *SHAPE, generator=stream), labels)


def make_opponent(num_classes: int = 0, weight: float = 1.0, **changes: Any) -> Opponent:
    """changes: of conf/objective/adversarial.yaml and SMALL."""
    with seeded(0, "discriminator"):
        discriminator = Discriminator(
            4, [8], 0.0, num_classes=num_classes, statistics_size=SHAPE[-1]
        )
    return Opponent(
        settings=objective_params("adversarial", **SMALL | changes),
        judge=judge,
        discriminator=discriminator,
        criterion=Criterion(noise_only, weight, None, process_of(diffusion_params()), "fp32", CPU),
        train=side(0, 11, num_classes),
        val=side(1, 5, num_classes),
        fakes=side(2, 6, num_classes),
        seed=0,
        iteration=1,
    )


def play_setup(opponent: Opponent, **changes: Any) -> Setup:
    """Two epochs of three steps, unless ``changes`` say otherwise."""
    own = {"samples_per_epoch": 12, "batch_size": 4} | changes
    setup = make_setup(opponent.criterion, **own)
    sides = {"train": opponent.train, "val": opponent.val}
    return replace(setup, stage="train_diffusion", iteration=1, opponent=opponent, **sides)

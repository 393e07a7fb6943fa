"""A tiny training of the diffusion model."""

from __future__ import annotations

import torch
from small_params import diffusion_params
from tiny_unet import CONFIG
from torch import nn

from advloop.diffusion.batch import noise_only
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.models.discriminator import Discriminator
from advloop.objectives.seed import seed_objective
from advloop.params.training import BaseParams
from advloop.training.batches import Side
from advloop.training.diffusion import Setup, train_diffusion

CPU = torch.device("cpu")
PARAMS = BaseParams(
    pretrained=None,
    epochs=2,
    samples_per_epoch=None,
    batch_size=4,
    learning_rate=1e-3,
    warmup_steps=0,
    ema_decay=0.9,
    grad_clip=1.0,
    eval_interval=1,
)


def make_criterion(
    objective="none", weight=0.1, prediction_type="v_prediction", **more
) -> Criterion:
    """objective: ``none``, ``seed``, or a function of a batch."""
    torch.manual_seed(0)
    discriminator = Discriminator(4, [8], dropout=0.0).requires_grad_(False).eval()
    return Criterion(
        objective={"none": noise_only, "seed": seed_objective}.get(objective, objective),
        weight=weight,
        discriminator=None if objective == "none" else discriminator,
        process=process_of(diffusion_params(prediction_type)),
        precision="fp32",
        device=CPU,
        **more,
    )


def make_setup(criterion: Criterion | None = None, rows: int = 8, **changes) -> Setup:
    """changes: of PARAMS."""
    stream = torch.Generator().manual_seed(0)
    return Setup(
        params=PARAMS.model_copy(update=changes),
        criterion=criterion or make_criterion(),
        train=Side(torch.randn(rows, 4, 8, 8, generator=stream)),
        val=Side(torch.randn(4, 4, 8, 8, generator=stream)),
        seed=0,
        stage="train_base",
        iteration=0,
    )


def copy_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run(setup: Setup, denoiser: Denoiser | None = None):
    """(rows, weights of the model, weights of the average), one entry per epoch."""
    rows, models, averages = [], [], []

    def on_epoch(history, model, ema):
        rows.append(dict(history[-1]))
        models.append(copy_weights(model))
        averages.append(copy_weights(ema))

    train_diffusion(setup, denoiser or build_denoiser(CONFIG, seed=0), list, on_epoch)
    return rows, models, averages


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

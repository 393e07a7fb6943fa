"""A tiny training of the discriminator, and latents that say which row they are."""

from __future__ import annotations

import torch
from small_params import diffusion_params

from advloop.diffusion.processes import process_of
from advloop.models.discriminator import Discriminator
from advloop.params.training import DiscriminatorParams, TrainDiscParams
from advloop.training.discriminator import DiscResult, DiscriminatorSetup, train_discriminator
from advloop.training.discriminator_data import DiscData

MODEL = DiscriminatorParams(noise_conditioned=False, channels=[8], dropout=0.2)
NOISE_CONDITIONED = MODEL.model_copy(update={"noise_conditioned": True})
PARAMS = TrainDiscParams(
    epochs=5,
    batch_size=16,
    learning_rate=1e-2,
    weight_decay=0.01,
    plateau_factor=0.5,
    plateau_patience=100,
    predicted_fraction=0.0,
    replay_fraction=0.0,
    r1_weight=0.0,
    r1_sigma=0.1,
    stop_accuracy=None,
    renoise_min_alpha_bar=0.5,
)
PROCESS = process_of(diffusion_params())


def numbered(start: int, count: int = 100) -> torch.Tensor:
    """Latents (count, 1, 1, 1) with the values start, start + 1, …"""
    return (start + torch.arange(float(count))).view(-1, 1, 1, 1)


def side(seed: int, rows: int, shift: float = 0.0) -> DiscData:
    """``rows`` reals of mean ``shift`` and as many fakes of mean -``shift``, both of variance 1."""
    stream = torch.Generator().manual_seed(seed)
    latents = torch.randn(2 * rows, 4, 8, 8, generator=stream)
    real = torch.cat([torch.ones(rows), torch.zeros(rows)])
    return DiscData(latents + shift * (2 * real - 1).view(-1, 1, 1, 1), real)


def make_setup(train: DiscData, val: DiscData, model=MODEL, **changes) -> DiscriminatorSetup:
    """changes: of the setup, or of PARAMS."""
    own = {k: changes.pop(k) for k in ("seed", "iteration") if k in changes}
    own |= {k: changes.pop(k) for k in ("num_classes", "precision") if k in changes}
    params = PARAMS.model_copy(update=changes)
    return DiscriminatorSetup(
        params, model, train, val, PROCESS, **{"seed": 0, "iteration": 0} | own
    )


def fit(train: DiscData, val: DiscData, model=MODEL, **changes) -> DiscResult:
    rows: list[dict[str, float]] = []
    setup = make_setup(train, val, model, **changes)
    result = train_discriminator(setup, iter, lambda history: rows.append(history[-1]))
    assert rows == result.history
    return result


def rebuild(result: DiscResult, weights: dict[str, torch.Tensor]) -> Discriminator:
    model = Discriminator(**result.config)
    model.load_state_dict(weights)
    return model.eval()

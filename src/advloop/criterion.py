"""From clean latents to the loss of an objective, for training and on held-out latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from advloop.objectives.base import Batch, Objective, Terms
from advloop.params.diffusion import DiffusionParams
from advloop.runtime import autocast, batches, eval_mode, generator
from advloop.sampling import noise_for
from advloop.schedule import add_noise, make_alphas_cumprod


@dataclass
class Criterion:
    """An objective with all that it needs beside the batch.

    discriminator: frozen and in evaluation mode, or None. precision: ``fp32`` or ``bf16``,
    for the diffusion network alone; the loss is computed in float32.
    """

    objective: Objective
    weight: float
    discriminator: nn.Module | None
    diffusion: DiffusionParams
    precision: str
    where: torch.device

    def __post_init__(self) -> None:
        self.alphas_cumprod = make_alphas_cumprod(
            self.diffusion.beta_schedule, self.diffusion.num_train_timesteps
        ).to(self.where)

    def __call__(
        self, model: nn.Module, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, Terms]:
        """(loss, terms) of one batch. x0, eps: (B, C, H, W); timesteps: (B,) in [0, T)."""
        noisy = add_noise(x0, eps, timesteps, self.alphas_cumprod)
        with autocast(self.precision, self.where):
            output = model(noisy, timesteps)
        return self.objective(
            Batch(
                x0=x0,
                eps=eps,
                noisy=noisy,
                timesteps=timesteps,
                output=output.float(),
                alphas_cumprod=self.alphas_cumprod,
                prediction_type=self.diffusion.prediction_type,
                discriminator=self.discriminator,
                weight=self.weight,
            )
        )


def held_out(
    criterion: Criterion, model: nn.Module, latents: torch.Tensor, seed: int, batch_size: int
) -> dict[str, float]:
    """Mean loss and terms on ``latents`` (N, C, H, W), with noise that never changes.

    The timesteps are spread evenly over [0, T) and paired with the rows once, so that
    every epoch, and every iteration, is measured on the same problem.
    """
    stream = generator(seed, "validation", "timesteps")
    count, limit = len(latents), criterion.diffusion.num_train_timesteps
    timesteps = ((torch.arange(count) + 0.5) * limit / count).long()
    timesteps = timesteps[torch.randperm(count, generator=stream)]
    sums: dict[str, torch.Tensor] = {}
    with eval_mode(model):
        for part in batches(count, batch_size):
            rows = slice(part.start, part.stop)
            x0 = latents[rows].to(criterion.where)
            eps = noise_for(part, tuple(x0.shape[1:]), seed, "validation").to(criterion.where)
            loss, terms = criterion(model, x0, eps, timesteps[rows].to(criterion.where))
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(x0)
    return {name: float(total) / count for name, total in sums.items()}

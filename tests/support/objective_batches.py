"""Batches for objectives, and the gradients that an objective sends into the network's output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from advloop.diffusion.batch import Batch
from advloop.diffusion.process import Process
from advloop.diffusion.variance_preserving import VariancePreserving, make_alphas_cumprod

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
PROCESS = VariancePreserving(make_alphas_cumprod("squaredcos_cap_v2", 1000), "v_prediction")


class Mean(nn.Module):
    """A discriminator that takes latents of a large mean for real."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return 5 * latents.mean((1, 2, 3))


def make_batch(
    timesteps: tuple[int, ...] = (10, 200, 500, 800),
    *,
    seed: int = 0,
    output: torch.Tensor | None = None,
    process: Process = PROCESS,
    **more: Any,
) -> Batch:
    """Random latents (B, 4, 8, 8); the output, random if None, is a leaf of the graph."""
    stream = torch.Generator().manual_seed(seed)
    shape = (len(timesteps), 4, 8, 8)
    x0, eps, random = (torch.randn(shape, generator=stream) for _ in range(3))
    steps = torch.tensor(timesteps)
    fields = {"discriminator": Mean(), "weight": 1.0} | more
    return Batch(
        x0=x0,
        eps=eps,
        noisy=process.add_noise(x0, eps, steps),
        timesteps=steps,
        output=(random if output is None else output).requires_grad_(),
        process=process,
        **fields,
    )


def gradient(objective, batch: Batch) -> torch.Tensor:
    """Of the loss, in ``batch.output``: (B, 4, 8, 8)."""
    loss, _ = objective(batch)
    return torch.autograd.grad(loss, batch.output)[0]

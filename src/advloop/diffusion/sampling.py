"""Samples of a process: its deterministic sampler generates latents, another draws the previews."""

from __future__ import annotations

from collections.abc import Callable

import torch

from advloop.diffusion.process import Model, Process


def condition_on_labels(model: Callable[..., torch.Tensor], labels: torch.Tensor | None) -> Model:
    """The class-conditional ``model`` with its labels (B,) bound, for a sampler to call.

    None: ``model`` itself, which is unconditional.
    """
    if labels is None:
        return model
    return lambda noisy, time: model(noisy, time, labels)


@torch.no_grad()
def sample(
    process: Process, model: Model, noise: torch.Tensor, num_inference_steps: int
) -> torch.Tensor:
    """Clean latents (B, C, H, W), unclipped, from standard normal noise (B, C, H, W).

    One network call a step, no randomness: DDIM, or Euler steps where the process is no
    variance-preserving one.
    """
    process = process.to(noise.device)  # once: a copy waits for the GPU
    latents = process.start(noise)
    for step in process.steps(num_inference_steps):
        latents = step(model, latents)
    return latents


@torch.no_grad()
def sample_preview(
    process: Process,
    model: Model,
    noise: torch.Tensor,
    num_inference_steps: int,
    stream: torch.Generator,
) -> torch.Tensor:
    """As ``sample``, but by DDPM, whose noise is from ``stream``, where the process has it."""
    process = process.to(noise.device)
    latents = process.start(noise)
    for step in process.preview_steps(num_inference_steps, stream):
        latents = step(model, latents)
    return latents

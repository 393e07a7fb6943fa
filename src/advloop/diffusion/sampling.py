"""Samples of a process: its deterministic sampler generates latents, another draws the previews."""

from __future__ import annotations

from collections.abc import Callable

import torch

from advloop.diffusion.process import Model, Process


def condition_on_labels(
    model: Callable[..., torch.Tensor],
    labels: torch.Tensor | None,
    guidance_scale: float = 1.0,
    null_label: int | None = None,
) -> Model:
    """The class-conditional ``model`` with its labels (B,) bound, for a sampler to call.

    None: ``model`` itself, which is unconditional. guidance_scale: of classifier-free guidance
    (Ho & Salimans 2022, Eq. 6, where it is 1 + w), with ``null_label`` as the label of no class.
    Unless it is 1, every call is of a batch twice as large: two network calls for each sample.
    """
    if labels is None:
        return model
    if guidance_scale == 1:
        return lambda noisy, time: model(noisy, time, labels)
    assert null_label is not None

    def guided(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        both = torch.cat([labels, torch.full_like(labels, null_label)])
        output = model(torch.cat([noisy, noisy]), torch.cat([time, time]), both)
        with_class, without = output.chunk(2)
        return without + guidance_scale * (with_class - without)

    return guided


def calls_of(process: Process, num_inference_steps: int, guidance_scale: float) -> int:
    """Network calls for one sample."""
    return process.calls(num_inference_steps) * (1 if guidance_scale == 1 else 2)


@torch.no_grad()
def sample(
    process: Process, model: Model, noise: torch.Tensor, num_inference_steps: int
) -> torch.Tensor:
    """Clean latents (B, C, H, W), unclipped, from standard normal noise (B, C, H, W).

    No randomness: DDIM, or steps of Euler or Heun where the process is no variance-preserving one.
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

"""Samplers: DDIM generates latents, DDPM draws the previews."""

from __future__ import annotations

from collections.abc import Callable

import torch

from advloop.core.random import drawn_on
from advloop.diffusion.process import predict_eps, predict_x0, trailing_timesteps

Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""model(noisy (B, C, H, W), timesteps (B,)) -> output (B, C, H, W) of the prediction type."""


def condition_on_labels(model: Callable[..., torch.Tensor], labels: torch.Tensor | None) -> Model:
    """The class-conditional ``model`` with its labels (B,) bound, for a sampler to call.

    None: ``model`` itself, which is unconditional.
    """
    if labels is None:
        return model
    return lambda noisy, timesteps: model(noisy, timesteps, labels)


@torch.no_grad()
def sample_ddim(
    model: Model,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
    num_inference_steps: int,
) -> torch.Tensor:
    """DDIM with eta = 0 (Song et al. 2021, Eq. 12): one network call a step, no randomness.

    noise: (B, C, H, W) at t = T - 1. Returns clean latents (B, C, H, W), unclipped.
    """
    alphas_cumprod = alphas_cumprod.to(noise.device)  # once: a copy waits for the GPU
    latents = noise
    for t, previous in ddim_timesteps(len(alphas_cumprod), num_inference_steps):
        latents = ddim_step(model, latents, t, previous, alphas_cumprod, prediction_type)
    return latents


def ddim_timesteps(num_train_timesteps: int, steps: int) -> list[tuple[int, int | None]]:
    """(t, the timestep after it) of each step of the sampler; the last one leads to clean latents.

    steps: at least 1.
    """
    timesteps = trailing_timesteps(num_train_timesteps, steps)
    return list(zip(timesteps, [*timesteps[1:], None], strict=True))


def ddim_step(
    model: Model,
    latents: torch.Tensor,
    t: int,
    previous: int | None,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Latents (B, C, H, W) at timestep ``previous`` from those at ``t`` (Song et al. 2021, Eq. 12).

    previous: None for clean latents. Differentiable in ``latents`` and in the model's weights.
    """
    timesteps = torch.full((len(latents),), t, dtype=torch.long, device=latents.device)
    output = model(latents, timesteps)
    x0 = predict_x0(output, latents, timesteps, alphas_cumprod, prediction_type)
    if previous is None:
        return x0
    eps = predict_eps(output, latents, timesteps, alphas_cumprod, prediction_type)
    alpha_bar = alphas_cumprod[previous]
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


@torch.no_grad()
def sample_ddpm(
    model: Model,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
    num_inference_steps: int,
    stream: torch.Generator,
) -> torch.Tensor:
    """Ancestral sampling (Ho et al. 2020, Eq. 6 and 7) over ``num_inference_steps`` timesteps.

    num_inference_steps = T is the original chain; fewer steps skip timesteps (Nichol & Dhariwal
    2021, section 4). The noise of every step comes from ``stream``; a GPU draws it itself, from a
    stream with the same seed.

    noise: (B, C, H, W) at t = T - 1. Returns clean latents (B, C, H, W), unclipped.
    """
    steps = trailing_timesteps(len(alphas_cumprod), num_inference_steps)
    alphas_cumprod = alphas_cumprod.to(noise.device)  # once: a copy waits for the GPU
    alpha_bars = alphas_cumprod.tolist()
    stream = drawn_on(noise.device, stream)
    latents = noise
    for t, previous in zip(steps, [*steps[1:], None], strict=True):
        timesteps = torch.full((len(latents),), t, dtype=torch.long, device=latents.device)
        output = model(latents, timesteps)
        x0 = predict_x0(output, latents, timesteps, alphas_cumprod, prediction_type)
        if previous is None:
            return x0
        alpha_bar, earlier = alpha_bars[t], alpha_bars[previous]
        alpha = alpha_bar / earlier
        mean = (earlier**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - earlier) * latents) / (
            1 - alpha_bar
        )
        variance = (1 - earlier) / (1 - alpha_bar) * (1 - alpha)
        step_noise = torch.randn(latents.shape, generator=stream, device=stream.device)
        latents = mean + variance**0.5 * step_noise
    raise AssertionError("num_inference_steps is at least 1")

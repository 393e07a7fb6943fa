"""The forward diffusion process and the conversions between its quantities.

Notation of DDPM (Ho et al. 2020) and DDIM (Song et al. 2021), as in diffusers:
alpha_bar_t is ``alphas_cumprod[t]``; noisy = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.
"""

from __future__ import annotations

import math

import torch

from advloop.core.errors import UserError
from advloop.params.diffusion import BETAS, DiffusionParams


def make_alphas_cumprod(
    beta_schedule: str, num_train_timesteps: int, betas: tuple[float, float] | None = None
) -> torch.Tensor:
    """alpha_bar of every timestep: (T,) float32, falling from almost 1 towards 0.

    linear: Ho et al. 2020, section 4; scaled_linear: latent diffusion (Rombach et al.
    2022); squaredcos_cap_v2: the cosine schedule (Nichol & Dhariwal 2021, Eq. 17).
    betas: first and last beta of linear and scaled_linear; None: those of the papers.
    """
    steps = num_train_timesteps
    start, end = betas or BETAS.get(beta_schedule, (0, 0))
    if beta_schedule == "linear":
        beta = torch.linspace(start, end, steps, dtype=torch.float64)
    elif beta_schedule == "scaled_linear":
        beta = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    elif beta_schedule == "squaredcos_cap_v2":
        edges = torch.arange(steps + 1, dtype=torch.float64) / steps
        curve = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    else:
        raise UserError(f"diffusion.beta_schedule={beta_schedule}: unknown schedule")
    return torch.cumprod(1 - beta, 0).float()


def alphas_cumprod_of(params: DiffusionParams) -> torch.Tensor:
    """alpha_bar (T,) of a run's diffusion process."""
    return make_alphas_cumprod(params.beta_schedule, params.num_train_timesteps, params.betas())


def coefficients(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) as (B, 1, 1, 1) tensors of ``like``'s device."""
    alpha_bar = alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(
    x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """Sample q(x_t | x_0) (DDPM, Eq. 4). x0, eps: (B, C, H, W); timesteps: (B,) in [0, T)."""
    signal, noise = coefficients(alphas_cumprod, timesteps, x0)
    return signal * x0 + noise * eps


def training_target(
    x0: torch.Tensor,
    eps: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """The regression target of the network: eps, v (Salimans & Ho 2022, appendix D) or x0.

    x0, eps, result: (B, C, H, W); timesteps: (B,) int in [0, T).
    """
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "sample":
        return x0
    signal, noise = coefficients(alphas_cumprod, timesteps, x0)
    return signal * eps - noise * x0


def predict_x0(
    output: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Clean latents implied by a network output (DDIM, Eq. 12).

    output, noisy: (B, C, H, W); timesteps: (B,) int in [0, T), one per sample.
    Returns (B, C, H, W), unclipped, differentiable in ``output``.
    """
    if prediction_type == "sample":
        return output
    signal, noise = coefficients(alphas_cumprod, timesteps, noisy)
    if prediction_type == "epsilon":
        return (noisy - noise * output) / signal
    return signal * noisy - noise * output


def predict_eps(
    output: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Noise implied by a network output; shapes as ``predict_x0``."""
    if prediction_type == "epsilon":
        return output
    signal, noise = coefficients(alphas_cumprod, timesteps, noisy)
    if prediction_type == "sample":
        return (noisy - signal * output) / noise
    return signal * output + noise * noisy


def stratified_timesteps(
    count: int, num_train_timesteps: int, stream: torch.Generator
) -> torch.Tensor:
    """Random timesteps (count,) int64 in [0, T), ascending: one in each of ``count`` equal strata.

    For training. The loss of a batch varies less than with independent draws, as with the
    low-discrepancy sampler of Kingma et al. 2021 (appendix I.1).
    """
    fractions = (torch.arange(count) + torch.rand(count, generator=stream)) / count
    return (fractions * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)


def midpoint_timesteps(count: int, limit: int, stream: torch.Generator) -> torch.Tensor:
    """Timesteps (count,) int64 at the midpoints of ``count`` equal strata of [0, limit).

    For measurements: the same timesteps whatever the seed, in a random order, so that they are
    unrelated to the order of the samples.
    """
    timesteps = ((torch.arange(count, dtype=torch.float64) + 0.5) * limit / count).long()
    return timesteps[torch.randperm(count, generator=stream)]


def timestep_limit(alphas_cumprod: torch.Tensor, min_alpha_bar: float, key: str) -> int:
    """The timesteps of [0, limit) are those with alpha_bar >= min_alpha_bar; returns limit >= 1.

    key: the parameter that holds min_alpha_bar. UserError names it if no timestep qualifies.
    """
    limit = int((alphas_cumprod >= min_alpha_bar).sum())
    if limit == 0:
        raise UserError(
            f"{key}={min_alpha_bar}: no timestep of this diffusion has an alpha_bar that high; "
            f"lower it to at most {float(alphas_cumprod.max()):.4f}"
        )
    return limit


def trailing_timesteps(num_train_timesteps: int, num_inference_steps: int) -> list[int]:
    """Timesteps of a sampler, descending from T - 1 and evenly spaced.

    The "trailing" spacing of Lin et al. 2024 (table 2), with which sampling starts at pure noise.
    """
    stride = num_train_timesteps / num_inference_steps
    return [round(num_train_timesteps - i * stride) - 1 for i in range(num_inference_steps)]

"""Deterministic samplers of processes whose latents move along d latents / d sigma, the slope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch

from advloop.diffusion.process import Model, Step
from advloop.params.diffusion import Sampler

Slope = Callable[[Model, torch.Tensor, float], torch.Tensor]
"""slope(model, latents (B, C, H, W), sigma) -> d latents / d sigma, by one network call."""


def solver_steps(slope: Slope, sigmas: Sequence[float], sampler: Sampler) -> list[Step]:
    """The steps from each of ``sigmas``, which fall to 0, to the next."""
    step = {"euler": euler_step, "heun": heun_step}[sampler]
    return [partial(step, slope, sigma, after) for sigma, after in pairwise(sigmas)]


def calls_of_solver(sampler: Sampler, count: int) -> int:
    """Network calls of ``count`` steps: two each of Heun's, but for the last."""
    return 2 * count - 1 if sampler == "heun" else count


def euler_step(
    slope: Slope, sigma: float, after: float, model: Model, latents: torch.Tensor
) -> torch.Tensor:
    """Latents at noise level ``after`` from those at ``sigma``: the slope stays as it is here."""
    return latents + (after - sigma) * slope(model, latents, sigma)


def heun_step(
    slope: Slope, sigma: float, after: float, model: Model, latents: torch.Tensor
) -> torch.Tensor:
    """The same with the mean of the slopes at both ends; the last step has none at its end.

    Karras et al. 2022, Algorithm 1.
    """
    here = slope(model, latents, sigma)
    moved = latents + (after - sigma) * here
    if after == 0:
        return moved
    return latents + (after - sigma) * (here + slope(model, moved, after)) / 2

"""Rectified flow: straight lines from latents to noise, sampled with Euler steps.

Liu et al. 2023, "Flow Straight and Fast"; Lipman et al. 2023, "Flow Matching for Generative
Modeling". noisy = (1 - sigma) x0 + sigma eps; the network predicts the velocity eps - x0, and its
time is sigma T, as in diffusers' FlowMatchEulerDiscreteScheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from advloop.diffusion.process import Model, Process, Step, over_batch


def shifted(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Noise levels in [0, 1] moved towards noise by shift > 1 (Esser et al. 2024, Eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def make_flow(num_train_timesteps: int, shift: float) -> RectifiedFlow:
    """The flow whose timestep t has the noise level shifted((t + 1) / T)."""
    even = torch.arange(1, num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    sigmas = shifted(even, shift).float()
    signal, noise = (1 - sigmas).square(), sigmas.square()
    return RectifiedFlow(signal / (signal + noise), sigmas, shift)


@dataclass(frozen=True, eq=False)
class RectifiedFlow(Process):
    """sigmas: (T,) in (0, 1], rising."""

    sigmas: torch.Tensor
    shift: float

    def add_noise(
        self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """A point of the line between both."""
        sigma = over_batch(self.sigmas, timesteps, x0)
        return (1 - sigma) * x0 + sigma * eps

    def inputs(
        self, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The noisy latents, and sigma T (B,)."""
        return noisy, self.sigmas.to(noisy.device)[timesteps] * self.num_train_timesteps

    def target(self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  # the same at all of them
        """The velocity."""
        return eps - x0

    def predict_x0(
        self, output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """The end of the line that the predicted velocity draws."""
        return noisy - over_batch(self.sigmas, timesteps, noisy) * output

    def steps(self, count: int) -> Sequence[Step]:
        """Euler steps between evenly spaced noise levels, shifted, from 1 to 0.

        They are what ``set_timesteps(sigmas=numpy.linspace(1, 1 / count, count))`` makes of
        diffusers' scheduler, as FluxPipeline calls it. Without ``sigmas`` that scheduler spends its
        last step on the way from 1 / T to 0.
        """
        even = torch.linspace(1, 0, count + 1, dtype=torch.float64)
        sigmas = shifted(even, self.shift).float().tolist()
        return [partial(self._euler_step, *pair) for pair in pairwise(sigmas)]

    def _euler_step(
        self, sigma: float, after: float, model: Model, latents: torch.Tensor
    ) -> torch.Tensor:
        """Latents at noise level ``after`` from those at ``sigma``."""
        time = torch.full((len(latents),), sigma * self.num_train_timesteps, device=latents.device)
        return latents + (after - sigma) * model(latents, time)

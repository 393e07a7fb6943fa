"""Rectified flow: straight lines from latents to noise, sampled with steps of Euler or of Heun.

Liu et al. 2023, "Flow Straight and Fast"; Lipman et al. 2023, "Flow Matching for Generative
Modeling". noisy = (1 - sigma) x0 + sigma eps; the network predicts the velocity eps - x0, and its
time is sigma T, as in diffusers' FlowMatchEulerDiscreteScheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from advloop.diffusion.process import Model, Process, Step, over_batch
from advloop.diffusion.solvers import calls_of_solver, solver_steps
from advloop.params.diffusion import FlowParams, Sampler


def shifted(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Noise levels in [0, 1] moved towards noise by shift > 1 (Esser et al. 2024, Eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def make_flow(params: FlowParams) -> RectifiedFlow:
    """The flow whose timestep t has the noise level shifted((t + 1) / T)."""
    count = params.num_train_timesteps
    even = torch.arange(1, count + 1, dtype=torch.float64) / count
    sigmas = shifted(even, params.shift).float()
    signal, noise = (1 - sigmas).square(), sigmas.square()
    return RectifiedFlow(signal / (signal + noise), sigmas, params.shift, params.sampler)


@dataclass(frozen=True, eq=False)
class RectifiedFlow(Process):
    """sigmas: (T,) in (0, 1], rising."""

    sigmas: torch.Tensor
    shift: float
    sampler: Sampler

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
        """Steps between evenly spaced noise levels, shifted, from 1 to 0.

        Those of Euler are what ``set_timesteps(sigmas=numpy.linspace(1, 1 / count, count))`` makes
        of diffusers' FlowMatchEulerDiscreteScheduler, as FluxPipeline calls it. Without ``sigmas``
        it spends its last step on the way from the lowest level of the training to 0. So does its
        FlowMatchHeunDiscreteScheduler, and so do those of Heun here, whose last step is Euler's.
        """
        if self.sampler == "heun":
            even = torch.linspace(1, float(self.sigmas[0]), count, dtype=torch.float64)
            sigmas = [*shifted(even, self.shift).float().tolist(), 0.0]
        else:
            even = torch.linspace(1, 0, count + 1, dtype=torch.float64)
            sigmas = shifted(even, self.shift).float().tolist()
        return solver_steps(self._slope, sigmas, self.sampler)

    def calls(self, count: int) -> int:
        return calls_of_solver(self.sampler, count)

    def _slope(self, model: Model, latents: torch.Tensor, sigma: float) -> torch.Tensor:
        """The velocity."""
        time = torch.full((len(latents),), sigma * self.num_train_timesteps, device=latents.device)
        return model(latents, time)

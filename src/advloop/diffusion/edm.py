"""The process of EDM: noise of any scale on latents that stay, and a preconditioned network.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models". noisy =
x0 + sigma eps. As in diffusers' EDMEulerScheduler, the network sees noisy / sqrt(sigma^2 +
sigma_data^2) and the time log(sigma) / 4, and its output F means x0 = c_skip noisy + c_out F.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from advloop.diffusion.process import Model, Process, Step, over_batch
from advloop.diffusion.solvers import calls_of_solver, solver_steps
from advloop.params.diffusion import EdmParams


def make_edm(params: EdmParams) -> Edm:
    """The process whose timesteps are T equally likely noise levels of the training.

    log(sigma) is normal there (table 1). Each level is the median of its share, so that timesteps
    that are drawn evenly have that distribution.
    """
    count, normal = params.num_train_timesteps, NormalDist(params.p_mean, params.p_std)
    logs = [normal.inv_cdf((t + 0.5) / count) for t in range(count)]
    sigmas = torch.tensor(logs, dtype=torch.float64).exp().float()
    return Edm(1 / (1 + sigmas.square()), sigmas, params)


@dataclass(frozen=True, eq=False)
class Edm(Process):
    """sigmas: (T,) above 0, rising."""

    sigmas: torch.Tensor
    params: EdmParams

    def _scales(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """c_in, c_skip and c_out (table 1), shaped as ``sigma``; c_out < 0 of a v_prediction."""
        data = self.params.sigma_data
        both = sigma.square() + data**2
        sign = -1 if self.params.prediction_type == "v_prediction" else 1
        return both.rsqrt(), data**2 / both, sign * sigma * data * both.rsqrt()

    def add_noise(
        self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Latents of variance 1 become of variance 1 + sigma^2."""
        return x0 + over_batch(self.sigmas, timesteps, x0) * eps

    def inputs(
        self, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """c_in noisy, and c_noise = log(sigma) / 4 (B,)."""
        return self._seen(noisy, over_batch(self.sigmas, timesteps, noisy))

    def _seen(self, noisy: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._scales(sigma)[0] * noisy, 0.25 * sigma.view(-1).log()

    def target(self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """F of Eq. 8, whose mean squared error is the paper's weighted one (appendix B.6)."""
        sigma = over_batch(self.sigmas, timesteps, x0)
        _, skip, out = self._scales(sigma)
        return (x0 - skip * (x0 + sigma * eps)) / out

    def predict_x0(
        self, output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """D of Eq. 7."""
        return self._denoised(output, noisy, over_batch(self.sigmas, timesteps, noisy))

    def _denoised(
        self, output: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        _, skip, out = self._scales(sigma)
        x0: torch.Tensor = skip * noisy + out * output
        return x0

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Of the deviation that latents of variance 1 have at sigma_max."""
        return noise * math.sqrt(self.params.sigma_max**2 + 1)

    def steps(self, count: int) -> Sequence[Step]:
        """Steps between the noise levels of Eq. 5: Algorithm 1 without noise.

        Those of Euler are without its correction, too.
        """
        most, least = (
            sigma ** (1 / self.params.rho)
            for sigma in (self.params.sigma_max, self.params.sigma_min)
        )
        ramp = torch.linspace(0, 1, count, dtype=torch.float64)
        sigmas = [*((most + ramp * (least - most)) ** self.params.rho).float().tolist(), 0.0]
        return solver_steps(self._slope, sigmas, self.params.sampler)

    def calls(self, count: int) -> int:
        return calls_of_solver(self.params.sampler, count)

    def _slope(self, model: Model, latents: torch.Tensor, sigma: float) -> torch.Tensor:
        """(latents - x0) / sigma (Eq. 3), without a difference that low levels leave few digits."""
        level = torch.full((len(latents), 1, 1, 1), sigma, device=latents.device)
        *_, out = self._scales(level)
        output = model(*self._seen(latents, level))
        slope: torch.Tensor = sigma / (sigma**2 + self.params.sigma_data**2) * latents
        return slope - out / sigma * output

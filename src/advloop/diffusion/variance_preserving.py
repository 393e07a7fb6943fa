"""The variance-preserving process, sampled with DDIM and, in previews, with DDPM.

Notation of DDPM (Ho et al. 2020) and DDIM (Song et al. 2021), as in diffusers:
alpha_bar_t is ``alpha_bars[t]``; noisy = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from advloop.core.errors import UserError
from advloop.core.random import drawn_on
from advloop.diffusion.process import Model, Process, Step, over_batch
from advloop.params.diffusion import BETAS


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


def with_zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """alpha_bar (T,) moved and stretched so that the last one is 0 and the first one stays.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", Algorithm 1.
    """
    signal = alphas_cumprod.double().sqrt()
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return signal.square().float()


def trailing_timesteps(num_train_timesteps: int, num_inference_steps: int) -> list[int]:
    """Timesteps of a sampler, descending from T - 1 and evenly spaced.

    The "trailing" spacing of Lin et al. 2024 (table 2), with which sampling starts at pure noise.
    """
    stride = num_train_timesteps / num_inference_steps
    return [round(num_train_timesteps - i * stride) - 1 for i in range(num_inference_steps)]


@dataclass(frozen=True, eq=False)
class VariancePreserving(Process):
    """prediction_type: epsilon, v_prediction or sample."""

    prediction_type: str

    def coefficients(
        self, timesteps: torch.Tensor, like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar) as (B, 1, 1, 1) on the device of ``like``."""
        alpha_bar = over_batch(self.alpha_bars, timesteps, like)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(
        self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Sample q(x_t | x_0) (DDPM, Eq. 4)."""
        signal, noise = self.coefficients(timesteps, x0)
        return signal * x0 + noise * eps

    def inputs(
        self, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The noisy latents and the timesteps themselves."""
        return noisy, timesteps

    def target(self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """eps, v (Salimans & Ho 2022, appendix D) or x0."""
        if self.prediction_type == "epsilon":
            return eps
        if self.prediction_type == "sample":
            return x0
        signal, noise = self.coefficients(timesteps, x0)
        return signal * eps - noise * x0

    def predict_x0(
        self, output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Clean latents that an output implies (DDIM, Eq. 12)."""
        if self.prediction_type == "sample":
            return output
        signal, noise = self.coefficients(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - noise * output) / signal
        return signal * noisy - noise * output

    def predict_eps(
        self, output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Noise that an output implies."""
        if self.prediction_type == "epsilon":
            return output
        signal, noise = self.coefficients(timesteps, noisy)
        if self.prediction_type == "sample":
            return (noisy - signal * output) / noise
        return signal * output + noise * noisy

    def steps(self, count: int) -> Sequence[Step]:
        """DDIM with eta = 0 (Song et al. 2021, Eq. 12), which draws no noise."""
        timesteps = trailing_timesteps(self.num_train_timesteps, count)
        pairs = zip(timesteps, [*timesteps[1:], None], strict=True)
        return [partial(self._ddim_step, t, previous) for t, previous in pairs]

    def _ddim_step(
        self, t: int, previous: int | None, model: Model, latents: torch.Tensor
    ) -> torch.Tensor:
        """Latents at timestep ``previous``, clean ones at None, from those at ``t``."""
        timesteps = torch.full((len(latents),), t, dtype=torch.long, device=latents.device)
        output = model(latents, timesteps)
        x0 = self.predict_x0(output, latents, timesteps)
        if previous is None:
            return x0
        eps = self.predict_eps(output, latents, timesteps)
        alpha_bar = self.alpha_bars[previous]
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps

    def preview_steps(self, count: int, stream: torch.Generator) -> Sequence[Step]:
        """Ancestral sampling (Ho et al. 2020, Eq. 6 and 7) over ``count`` timesteps.

        count = T is the original chain; fewer steps skip timesteps (Nichol & Dhariwal 2021,
        section 4). The noise of every step comes from ``stream``; a GPU draws it itself, from a
        stream with the same seed.
        """
        timesteps = trailing_timesteps(self.num_train_timesteps, count)
        alpha_bars = self.alpha_bars.tolist()  # once: reading one waits for the GPU
        stream = drawn_on(self.alpha_bars.device, stream)
        pairs = zip(timesteps, [*timesteps[1:], None], strict=True)
        return [partial(self._ddpm_step, t, p, alpha_bars, stream) for t, p in pairs]

    def _ddpm_step(
        self,
        t: int,
        previous: int | None,
        alpha_bars: list[float],
        stream: torch.Generator,
        model: Model,
        latents: torch.Tensor,
    ) -> torch.Tensor:
        """As ``_ddim_step``; alpha_bars: those of the process as numbers."""
        timesteps = torch.full((len(latents),), t, dtype=torch.long, device=latents.device)
        output = model(latents, timesteps)
        x0 = self.predict_x0(output, latents, timesteps)
        if previous is None:
            return x0
        alpha_bar, earlier = alpha_bars[t], alpha_bars[previous]
        alpha = alpha_bar / earlier
        mean = (earlier**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - earlier) * latents) / (
            1 - alpha_bar
        )
        variance = (1 - earlier) / (1 - alpha_bar) * (1 - alpha)
        step_noise = torch.randn(latents.shape, generator=stream, device=stream.device)
        earlier_latents: torch.Tensor = mean + variance**0.5 * step_noise
        return earlier_latents

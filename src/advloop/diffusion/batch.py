"""Batch -> (loss, terms): what an objective gets, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.random import batches
from advloop.diffusion.process import Process

Terms = dict[str, torch.Tensor]
"""Detached scalars to report, by name: noise_loss and the objective's own."""


class Rows(NamedTuple):
    """What is known of B samples without a network."""

    x0: torch.Tensor  # (B, C, H, W) clean latents
    timesteps: torch.Tensor  # (B,) int in [0, T)
    labels: torch.Tensor | None  # (B,) classes; None: unconditional


Weigh = Callable[[Rows], torch.Tensor]
"""Rows -> their weights (B,) in a mean."""


@dataclass(frozen=True)
class Whole:
    """All ``count`` samples of a measurement, which is made in batches of ``batch_size``.

    rows: gives those of a range.
    """

    count: int
    batch_size: int
    rows: Callable[[range], Rows]
    _means: dict[str, torch.Tensor] = field(default_factory=dict)

    def mean_weight(self, name: str, weigh: Weigh) -> torch.Tensor:
        """Mean of ``weigh`` over all samples, a scalar, computed once for each ``name``."""
        if name not in self._means:
            parts = batches(self.count, self.batch_size)
            self._means[name] = torch.cat([weigh(self.rows(part)) for part in parts]).mean()
        return self._means[name]


class Part(NamedTuple):
    """What a batch knows of the measurement that it is a part of."""

    whole: Whole
    eps_before: torch.Tensor  # (B, C, H, W) of the sample before each; before the first: the last
    timesteps_before: torch.Tensor  # (B,)


@dataclass(frozen=True)
class Batch:
    """One batch after the forward pass of the diffusion networks. B samples.

    ``fake`` holds generated latents in the place of real ones; ``reference`` and ``fake`` are
    None unless the objective asks for them.
    """

    x0: torch.Tensor  # (B, C, H, W) clean latents
    eps: torch.Tensor  # (B, C, H, W) their noise, standard normal
    noisy: torch.Tensor  # (B, C, H, W) x0 noised with eps to timesteps
    timesteps: torch.Tensor  # (B,) int in [0, T)
    output: torch.Tensor  # (B, C, H, W) float32, predicted from noisy, with a gradient
    process: Process  # which says what noisy is and what output means
    discriminator: nn.Module | None  # frozen; None when training the base model
    weight: float | torch.Tensor  # of the objective's term relative to noise_loss
    reference: torch.Tensor | None = None  # (B, C, H, W) output of the frozen starting model
    fake: Batch | None = None
    labels: torch.Tensor | None = None  # (B,) classes; None: unconditional
    part: Part | None = None  # of a measurement; None: the batch is all that there is

    def target(self) -> torch.Tensor:
        """The regression target of ``output``, (B, C, H, W)."""
        return self.process.target(self.x0, self.eps, self.timesteps)

    def noise_loss(self) -> torch.Tensor:
        """MSE between output and target (DDPM, Eq. 14), a scalar."""
        return F.mse_loss(self.output, self.target())

    def predicted_x0(self) -> torch.Tensor:
        """One-step prediction of the clean latents (B, C, H, W), differentiable in ``output``."""
        return self.process.predict_x0(self.output, self.noisy, self.timesteps)

    def relative_weights(self, name: str, weigh: Weigh) -> torch.Tensor:
        """``weigh`` of the samples over its mean, (B,); all 0 where the mean is 0.

        The mean is over the batch, or over the whole measurement that it is a part of: the weighted
        means of the measurement's batches then average to that of all samples, whatever the batch
        size. name: of these weights.
        """
        own = weigh(Rows(self.x0, self.timesteps, self.labels))
        mean = own.mean() if self.part is None else self.part.whole.mean_weight(name, weigh)
        return own / mean.clamp(min=1e-6)

    def noise_before(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(eps, timesteps) of the sample before each; before the first comes the last."""
        if self.part is not None:
            return self.part.eps_before, self.part.timesteps_before
        return self.eps.roll(1, 0), self.timesteps.roll(1)

    def logits(self, latents: torch.Tensor, *timesteps: torch.Tensor) -> torch.Tensor:
        """Logits (B,) of the discriminator for ``latents`` of this batch's classes; positive: real.

        timesteps: (B,) noise level of the latents, for a noise-conditioned discriminator alone.
        """
        assert self.discriminator is not None
        labels = {} if self.labels is None else {"labels": self.labels}
        logits: torch.Tensor = self.discriminator(latents, *timesteps, **labels)
        return logits


Objective = Callable[[Batch], tuple[torch.Tensor, Terms]]
"""Batch -> (loss, terms); loss is a scalar with a gradient in ``batch.output``."""


def discriminator_terms(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(discriminator_loss, viability_score), scalars, of the logits (B,) of predicted latents.

    discriminator_loss is the non-saturating generator loss (Goodfellow et al. 2014, section 3):
    the mean of -log sigmoid(D), not -log of the mean. viability_score is the mean of sigmoid(D),
    without a gradient.
    """
    return F.softplus(-logits).mean(), logits.detach().sigmoid().mean()


def noise_only(batch: Batch) -> tuple[torch.Tensor, Terms]:
    """loss = noise_loss, that of the base model and of every control."""
    loss = batch.noise_loss()
    return loss, {"noise_loss": loss.detach()}

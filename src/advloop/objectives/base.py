"""What an objective is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from advloop.schedule import predict_x0, training_target

Terms = dict[str, torch.Tensor]
"""Detached scalars to report: noise_loss, and what the discriminator says."""


@dataclass(frozen=True)
class Batch:
    """One batch after the networks' forward pass; tensors are (B, C, H, W).

    output: what the network predicted for ``noisy`` at ``timesteps`` (B,).
    discriminator: frozen, or None where there is none (training of the base model).
    weight: of discriminator_loss beside noise_loss.
    reference: what the frozen starting model predicted for the same input; fake: a batch of
    generated latents. Both are None where the objective asks for neither. labels: (B,) classes,
    None where there are none.
    """

    x0: torch.Tensor
    eps: torch.Tensor
    noisy: torch.Tensor
    timesteps: torch.Tensor
    output: torch.Tensor
    alphas_cumprod: torch.Tensor
    prediction_type: str
    discriminator: nn.Module | None
    weight: float | torch.Tensor
    reference: torch.Tensor | None = None
    fake: Batch | None = None
    labels: torch.Tensor | None = None

    def target(self) -> torch.Tensor:
        """What the network is to predict."""
        return training_target(
            self.x0, self.eps, self.timesteps, self.alphas_cumprod, self.prediction_type
        )

    def noise_loss(self) -> torch.Tensor:
        """MSE between output and training target (DDPM, Eq. 14), a scalar."""
        return F.mse_loss(self.output, self.target())

    def judge(self, latents: torch.Tensor, *timesteps: torch.Tensor) -> torch.Tensor:
        """Logits (B,) of the discriminator; positive means real.

        timesteps: (B,) how noisy the latents are, for a discriminator that is to be told.
        """
        assert self.discriminator is not None
        told = {} if self.labels is None else {"labels": self.labels}
        logits: torch.Tensor = self.discriminator(latents, *timesteps, **told)
        return logits

    def predicted_x0(self) -> torch.Tensor:
        """One-step prediction of the clean latents, differentiable in ``output``."""
        return predict_x0(
            self.output, self.noisy, self.timesteps, self.alphas_cumprod, self.prediction_type
        )


Objective = Callable[[Batch], tuple[torch.Tensor, Terms]]
"""Batch -> (loss, terms); loss is a scalar with a gradient in ``batch.output``."""


def discriminator_terms(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(discriminator_loss, viability_score) of judged predictions, logits (B,).

    discriminator_loss is the mean of -log sigmoid(D) per sample, the non-saturating
    generator loss (Goodfellow et al. 2014, section 3), not -log of the mean.
    viability_score is the mean of sigmoid(D).
    """
    return F.softplus(-logits).mean(), logits.detach().sigmoid().mean()

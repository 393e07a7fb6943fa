"""Objective x0: the discriminator judges the one-step prediction where it means something."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from advloop.objectives.base import Batch, Objective, Terms
from advloop.schedule import add_noise, clear_timesteps

MAX_SNR = 5.0  # gamma of Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting"


def prediction_weights(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, min_alpha_bar: float
) -> torch.Tensor:
    """Weights (B,) in [0, 1] of one-step predictions: min(SNR, 5) / 5, and 0 below the gate.

    SNR = alpha_bar / (1 - alpha_bar). An error of eps reaches x0 multiplied by SNR^-0.5, so
    that at low alpha_bar the prediction is a blur that no model can avoid.
    """
    alpha_bar = alphas_cumprod[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=MAX_SNR) / MAX_SNR * (alpha_bar >= min_alpha_bar)


def judge_predictions(batch: Batch, min_alpha_bar: float) -> torch.Tensor:
    """Logits (B,) of the discriminator for the one-step predictions.

    A noise-conditioned one is shown them re-noised (Sauer et al. 2024, section 3.2) to
    timesteps above the gate, as in its own training. Noise and place of the timestep are the
    neighbour's in the batch, whose timesteps come in no order: no further draw is needed.
    """
    predictions = batch.predicted_x0()
    if not getattr(batch.discriminator, "noise_conditioned", False):
        return batch.judge(predictions)
    limit = clear_timesteps(batch.alphas_cumprod, min_alpha_bar, "objective.min_alpha_bar")
    timesteps = batch.timesteps.roll(1) * limit // len(batch.alphas_cumprod)
    noisy = add_noise(predictions, batch.eps.roll(1, 0), timesteps, batch.alphas_cumprod)
    return batch.judge(noisy, timesteps)


def make_x0(min_alpha_bar: float) -> Objective:
    """Gated and SNR-weighted ``seed``.

    loss = noise_loss + weight * discriminator_loss, the weighted mean of -log sigmoid(D) over
    the batch; viability_score is the weighted mean of sigmoid(D). Both are 0 in a batch
    whose timesteps all lie below the gate. gradient_ratio is the norm of the noise loss's
    gradient over that of discriminator_loss, both in the network's output; it lets the
    training loop cap the weight (VQGAN: Esser et al. 2021, Eq. 7).
    """

    def x0(batch: Batch) -> tuple[torch.Tensor, Terms]:
        noise_loss = batch.noise_loss()
        weights = prediction_weights(batch.alphas_cumprod, batch.timesteps, min_alpha_bar)
        weights = weights / weights.sum().clamp(min=1e-6)
        logits = judge_predictions(batch, min_alpha_bar)
        loss = (weights * F.softplus(-logits)).sum()
        terms = {
            "noise_loss": noise_loss.detach(),
            "discriminator_loss": loss.detach(),
            "viability_score": (weights * logits.detach().sigmoid()).sum(),
        }
        if loss.requires_grad:
            terms["gradient_ratio"] = _gradient_norm(noise_loss, batch) / _gradient_norm(
                loss, batch
            ).clamp(min=1e-12)
        return noise_loss + batch.weight * loss, terms

    return x0


def _gradient_norm(loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    norm: torch.Tensor = torch.autograd.grad(loss, batch.output, retain_graph=True)[0].norm()
    return norm

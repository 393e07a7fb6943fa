"""Objective seed: a frozen discriminator judges the one-step x0 prediction."""

from __future__ import annotations

import torch

from advloop.objectives.base import Batch, Terms, discriminator_terms


def seed_objective(batch: Batch) -> tuple[torch.Tensor, Terms]:
    """loss = noise_loss + weight * discriminator_loss, at every timestep alike.

    The discriminator sees the network's own prediction of x0, so that the gradient
    reaches the network; judging the ground-truth latents would teach it nothing.
    """
    noise_loss = batch.noise_loss()
    loss, viability = discriminator_terms(batch.judge(batch.predicted_x0()))
    terms = {
        "noise_loss": noise_loss.detach(),
        "discriminator_loss": loss.detach(),
        "viability_score": viability,
    }
    return noise_loss + batch.weight * loss, terms

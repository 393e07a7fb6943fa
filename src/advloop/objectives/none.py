"""Objective none: the noise loss alone, the equal-steps control."""

from __future__ import annotations

import torch

from advloop.objectives.base import Batch, Terms, discriminator_terms


def noise_only(batch: Batch) -> tuple[torch.Tensor, Terms]:
    """loss = noise_loss. A discriminator, where there is one, watches without a gradient."""
    loss = batch.noise_loss()
    terms = {"noise_loss": loss.detach()}
    if batch.discriminator is not None:
        with torch.no_grad():
            judged = discriminator_terms(batch.judge(batch.predicted_x0()))
        terms |= {"discriminator_loss": judged[0], "viability_score": judged[1]}
    return loss, terms

"""Objective ddo: direct discriminative optimization against the frozen starting model.

Zheng et al. 2025, "Direct Discriminative Optimization: Your Likelihood-Based Visual Generative
Model is Secretly a GAN Discriminator". A model and its frozen copy imply a discriminator,
sigmoid(log p_model(x) - log p_reference(x)); trained to tell real latents from samples of the
copy, the model moves from the copy's distribution towards the real one, without a gradient
through any discriminator network.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from advloop.objectives.base import Batch, Objective, Terms
from advloop.objectives.none import noise_only


def log_ratio(batch: Batch) -> torch.Tensor:
    """What stands for log p_model - log p_reference of each clean latent, (B,).

    One draw of the difference of both bounds, at the same timestep and noise, with the
    weight that the training loss gives that timestep: the reference's mean squared error
    minus the model's. Inside the logistic loss such draws give an upper bound of it (Jensen).
    The paper sums over a latent's elements; of the mean, one beta means the same at every
    resolution.
    """
    assert batch.reference is not None
    target = batch.target()
    ours, theirs = (
        (output - target).square().flatten(1).mean(1) for output in (batch.output, batch.reference)
    )
    return theirs - ours


def fake_weights(batch: Batch) -> torch.Tensor:
    """The trained discriminator's probability of being fake, scaled to mean 1, (B,).

    It was trained on most of these fakes, so that it is surer of them than of new ones.
    """
    with torch.no_grad():
        doubted = batch.judge(batch.x0).neg().sigmoid()
    return doubted / doubted.mean().clamp(min=1e-6)


def make_ddo(alpha: float, beta: float, *, weighted: bool = False) -> Objective:
    """alpha: weight of the fakes beside the reals; beta: factor of the log ratio.

    loss = noise_loss + weight * discriminator_loss, where discriminator_loss is the logistic
    loss of the implied discriminator, softplus(-beta r(real)) + alpha softplus(beta r(fake)).
    weighted: fakes count by how clearly the trained discriminator sees them; without it that
    discriminator only watches. viability_score is its own in either case.
    """

    def ddo(batch: Batch) -> tuple[torch.Tensor, Terms]:
        assert batch.fake is not None
        noise_loss, terms = noise_only(batch)
        real, fake = log_ratio(batch), log_ratio(batch.fake)
        pushed = F.softplus(beta * fake)
        if weighted:
            pushed = fake_weights(batch.fake) * pushed
        loss = F.softplus(-beta * real).mean() + alpha * pushed.mean()
        return noise_loss + batch.weight * loss, terms | {"discriminator_loss": loss.detach()}

    return ddo

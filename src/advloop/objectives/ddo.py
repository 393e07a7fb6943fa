"""Objective ddo: direct discriminative optimization against the frozen starting model.

Zheng et al. 2025, "Direct Discriminative Optimization: Your Likelihood-Based Visual Generative
Model is Secretly a GAN Discriminator". A model and its frozen copy imply a discriminator,
sigmoid(log p_model(x) - log p_reference(x)); trained to tell real latents from samples of the
copy, the model moves from the copy's distribution towards the real one, without a gradient
through any discriminator network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from advloop.objectives import Recipe
from advloop.params.section import Section

if TYPE_CHECKING:
    import torch

    from advloop.diffusion.batch import Batch, Objective, Rows, Terms


class DdoParams(Section):
    name: Literal["ddo"]
    uses_discriminator: bool  # fakes count by the trained discriminator's certainty
    weight: NonNegativeFloat  # of ddo_loss beside noise_loss
    alpha: NonNegativeFloat  # weight of the fakes beside the reals
    beta: PositiveFloat  # factor of the log-likelihood ratio


def log_ratio(batch: Batch) -> torch.Tensor:
    """An estimate of log p_model - log p_reference of each clean latent, (B,).

    The reference's mean squared error minus the model's: one sample of the difference of both
    likelihood bounds, at the same timestep and noise, and weighted as the training loss weighs
    that timestep. Inside the logistic loss, such samples give an upper bound of it (Jensen).
    The paper sums over a latent's elements; with the mean, one beta means the same at every
    resolution.
    """
    assert batch.reference is not None
    target = batch.target()
    ours, theirs = (
        (output - target).square().flatten(1).mean(1) for output in (batch.output, batch.reference)
    )
    return theirs - ours


def fake_weights(batch: Batch) -> torch.Tensor:
    """The trained discriminator's probability that each latent is fake, scaled to mean 1, (B,).

    It was trained on most of these fakes, so it is surer of them than of new ones.
    """

    def weigh(rows: Rows) -> torch.Tensor:
        return replace(batch, labels=rows.labels).logits(rows.x0).detach().neg().sigmoid()

    return batch.relative_weights("fakeness", weigh)


def make_ddo(params: DdoParams) -> Objective:
    """loss = noise_loss + weight * ddo_loss.

    ddo_loss is the logistic loss of the implied discriminator,
    softplus(-beta r(real)) + alpha softplus(beta r(fake)), with r = ``log_ratio``. With
    ``uses_discriminator`` the term of each fake is multiplied by its ``fake_weights``.
    """
    from torch.nn import functional as F

    def ddo(batch: Batch) -> tuple[torch.Tensor, Terms]:
        assert batch.fake is not None
        noise_loss = batch.noise_loss()
        real, fake = log_ratio(batch), log_ratio(batch.fake)
        pushed = F.softplus(params.beta * fake)
        if params.uses_discriminator:
            pushed = fake_weights(batch.fake) * pushed
        loss = F.softplus(-params.beta * real).mean() + params.alpha * pushed.mean()
        terms = {"noise_loss": noise_loss.detach(), "ddo_loss": loss.detach()}
        return noise_loss + batch.weight * loss, terms

    return ddo


RECIPE = Recipe(
    DdoParams,
    make_ddo,
    adaptive=None,
    against_reference=True,
    evaluations=8,
    trains_on="reals",
    merge=None,
    hands_on="best_epoch",
)

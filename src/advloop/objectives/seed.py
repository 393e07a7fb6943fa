"""Objective seed: a frozen discriminator judges the one-step x0 prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from advloop.objectives import Recipe
from advloop.params.section import Section

if TYPE_CHECKING:
    import torch

    from advloop.diffusion.batch import Batch, Objective, Terms


class SeedParams(Section):
    name: Literal["seed"]
    uses_discriminator: Literal[True]
    weight: NonNegativeFloat  # of discriminator_loss beside noise_loss


def seed_objective(batch: Batch) -> tuple[torch.Tensor, Terms]:
    """loss = noise_loss + weight * discriminator_loss, at every timestep alike.

    The discriminator sees the network's own prediction of x0, so that the gradient reaches the
    network: judging the true latents would teach it nothing.
    """
    from advloop.diffusion.batch import discriminator_terms

    noise_loss = batch.noise_loss()
    loss, viability = discriminator_terms(batch.logits(batch.predicted_x0()))
    terms = {
        "noise_loss": noise_loss.detach(),
        "discriminator_loss": loss.detach(),
        "viability_score": viability,
    }
    return noise_loss + batch.weight * loss, terms


def make_seed(_: SeedParams) -> Objective:
    return seed_objective


RECIPE = Recipe(
    SeedParams,
    make_seed,
    adaptive=None,
    against_reference=False,
    evaluations=3,
    trains_on="reals",
    merge=None,
    hands_on="best_epoch",
)

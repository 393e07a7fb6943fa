"""Objective adversarial: a discriminator judges what the sampler draws, and goes on learning.

A discriminator of one-step predictions judges means, D(E[x]) in the place of E[D(x)], and moves the
model off its marginals. Here the model samples from noise with all of the sampler's few steps, and
the gradient flows back through them (``diffusion.unrolled``). The discriminator of stage train_disc
learns several steps from recent samples for each of the model's (``training.opponent``). Both
compare pairs of a real and a fake latent, with penalties that keep the discriminator flat at both:
Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN" (R3GAN).
The noise loss stays beside it, as the anchor to the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from advloop.objectives import SamplerRecipe
from advloop.params.section import Section

if TYPE_CHECKING:
    import torch

    from advloop.diffusion.batch import Objective, Terms

Accuracy = Annotated[float, Field(ge=0, le=1)]


class AdversarialParams(Section):
    name: Literal["adversarial"]
    uses_discriminator: Literal[True]
    weight: NonNegativeFloat  # of generator_loss beside noise_loss
    num_inference_steps: PositiveInt  # of the samples that are judged
    gradient_steps: PositiveInt | None  # the last ones, through which the gradient goes; None: all
    samples_per_step: Annotated[int, Field(ge=2)]  # of the model's steps and the discriminator's
    recent_fakes: PositiveInt  # the newest samples, from which the discriminator learns
    discriminator_learning_rate: PositiveFloat
    r1_weight: NonNegativeFloat  # of the squared gradient at the reals, beside the pairing loss
    r2_weight: NonNegativeFloat  # the same at the fakes
    r1_sigma: PositiveFloat  # the step of their finite difference, in scaled units
    # the discriminator's steps for one of the model's: at first, and the bounds between which
    # they follow its held-out accuracy, which is to stay between the other two
    discriminator_steps: PositiveInt
    min_discriminator_steps: PositiveInt
    max_discriminator_steps: PositiveInt
    min_accuracy: Accuracy
    max_accuracy: Accuracy
    collapse_gradient: NonNegativeFloat  # norm of generator_loss's at one sample
    collapse_steps: PositiveInt  # so many steps in a row below it end the round


def make_adversarial(_: AdversarialParams) -> Objective:
    """loss = noise_loss of a batch; ``judge`` gives the other term, which is of samples."""
    from advloop.diffusion.batch import noise_only

    return noise_only


def judge(real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, Terms]:
    """generator_loss = mean softplus(-(D(fake) - D(real))) of pairs of logits (B,), (B,).

    viability_score is the mean sigmoid(D(fake)), with D's zero between reals and fakes; margin the
    mean D(real) - D(fake). Neither compares rounds: each has a discriminator of its own.
    """
    from advloop.models.pairing import pairing_loss, viability

    loss = pairing_loss(fake, real).mean()
    terms = {
        "generator_loss": loss.detach(),
        "viability_score": viability(real, fake).detach(),
        "margin": (real - fake).mean().detach(),
    }
    return loss, terms


# The last epoch is handed on: noise_loss, which is part of val_loss, rises while samples gain, and
# generator_loss is measured by another discriminator in each epoch. evaluations: of the noise loss,
# and of as many samples with eight steps, four of them with a gradient, as in conf/.
RECIPE = SamplerRecipe(
    AdversarialParams,
    make_adversarial,
    adaptive=None,
    against_reference=False,
    evaluations=19,
    trains_on="reals",
    merge=None,
    hands_on="last_epoch",
    judge=judge,
)

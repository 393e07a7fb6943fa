"""Objective neon: away from what the model becomes when it is trained on its own samples.

Alemohammad et al. 2025, "Neon: Negative Extrapolation from Self-Training Improves Image Generation"
(arXiv 2510.03597). A short training on the model's own samples makes the model worse. The step
that it takes points away from the data, because a sampler of few steps prefers what the model
finds likely; so the model takes that step backwards. There is no discriminator and no gradient
through anything but the noise loss, and no real latent is trained on: the control that an
adversarial objective has to beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from advloop.objectives import Recipe
from advloop.params.section import Section

if TYPE_CHECKING:
    from advloop.diffusion.batch import Objective
    from advloop.models.denoiser import Denoiser


class NeonParams(Section):
    name: Literal["neon"]
    uses_discriminator: Literal[False]
    weight: NonNegativeFloat  # w: of the step back, in lengths of the step that tuning took


def make_neon(_: NeonParams) -> Objective:
    """loss = noise_loss, on fakes."""
    from advloop.diffusion.batch import noise_only

    return noise_only


def extrapolate(params: NeonParams, start: Denoiser, tuned: Denoiser) -> Denoiser:
    """A frozen network with weights (1 + w) theta_start - w theta_tuned (Algorithm 1).

    start: the model that the fakes were sampled from; tuned: the same after training on them, its
    averaged weights. Both stay as they are.
    """
    import copy

    import torch

    from advloop.models.denoiser import scaled_adapter

    w = params.weight
    if backwards := scaled_adapter(tuned, -w):  # which is all that tuning has changed
        return backwards
    extrapolated = copy.deepcopy(start).requires_grad_(False).eval()
    with torch.no_grad():
        for theta, theta_tuned in zip(extrapolated.parameters(), tuned.parameters(), strict=True):
            theta.copy_((1 + w) * theta - w * theta_tuned)
    return extrapolated


# The last epoch is handed on, and not the one with the lowest val_loss. That grows with the step
# back, even where samples gain, and would favour epochs that stayed near the start.
RECIPE = Recipe(
    NeonParams,
    make_neon,
    adaptive=None,
    against_reference=False,
    evaluations=3,
    trains_on="fakes",
    merge=extrapolate,
    hands_on="last_epoch",
)

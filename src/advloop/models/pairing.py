"""A discriminator that compares: losses and measures of pairs of a real and a fake latent.

Relativistic pairing (Jolicoeur-Martineau 2019, RpGAN) with a gradient penalty at reals and at
fakes converges locally, where other adversarial losses may circle or drop modes (Huang et al.
2024, "The GAN is dead; long live the GAN!", R3GAN, Eq. 2 and section 2). Only differences of
logits count, so that nothing fixes the zero of a discriminator trained by it: ``midpoint`` does.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def pairing_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """softplus(-(D(real) - D(fake))) of each pair of logits (B,), (B,): the discriminator's loss.

    The generator's is ``pairing_loss(fake, real)`` (R3GAN, Eq. 2 with f(t) = -log(1 + exp(-t))).
    """
    return F.softplus(fake - real)


def midpoint(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """The scalar between the mean logits of reals (N,) and fakes (M,), where D cannot tell."""
    return (real.mean() + fake.mean()) / 2


def accuracy(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Share in [0, 1] of logits (N,), (M,) on their side of ``midpoint``; both classes weigh half.

    About 1/2 where the sets do not differ.
    """
    zero = midpoint(real, fake)
    return ((real > zero).float().mean() + (fake <= zero).float().mean()) / 2


def viability(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean sigmoid(D(fake)), in (0, 1), with D's zero at ``midpoint``; 1/2 for a perfect model."""
    return (fake - midpoint(real, fake)).sigmoid().mean()

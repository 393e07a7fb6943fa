"""The discriminator of image patches that the autoencoder trains against."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SMALLEST = 16  # pixels a side of an image with a logit


class PatchDiscriminator(nn.Sequential):
    """Pixels (B, 3, S, S) -> logits (B, 1, S / 4 - 2, S / 4 - 2); positive means real.

    S is at least SMALLEST.

    Each logit sees 34×34 pixels (Isola et al. 2017, section 6.1.2); every convolution has spectral
    norm 1 (Miyato et al. 2018), so that its gradients stay bounded without a penalty.
    """

    def __init__(self, width: int = 64) -> None:
        layers: list[nn.Module] = []
        for inside, outside, stride in ((3, 1, 2), (1, 2, 2), (2, 4, 1)):
            inside = inside if inside == 3 else inside * width
            convolution = nn.Conv2d(inside, outside * width, 4, stride, 1)
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 4, 1, 1))


def hinge_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean of max(0, 1 - real) + max(0, 1 + fake), of logits (Lim & Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

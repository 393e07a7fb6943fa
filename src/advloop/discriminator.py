"""The discriminator: real latents against generated ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.errors import UserError
from advloop.core.io import load_model, save_torch
from advloop.core.runtime import seeded
from advloop.params.discriminator import DiscriminatorParams

SINUSOIDS = 64  # what a timestep is told by: half sines, half cosines


def timestep_features(timesteps: torch.Tensor) -> torch.Tensor:
    """Sinusoids (B, SINUSOIDS) in [-1, 1] of timesteps (B,).

    Vaswani et al. 2017, section 3.5: wavelengths from 2 pi to 10,000 * 2 pi, so that both
    neighbouring timesteps and the ends of the longest schedule differ.
    """
    half = SINUSOIDS // 2
    exponents = torch.arange(half, device=timesteps.device) / (half - 1)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], 1)


class Discriminator(nn.Module):
    """Convolutions that halve the resolution once a level, then one logit.

    latents (B, C, H, W) in scaled units -> logits (B,); positive means real. Where it is
    ``noise_conditioned``, ``timesteps`` (B,) say how noisy the latents are, and become a
    bias of each channel after the first convolution; without them latents count as clean,
    which is timestep 0. Any other discriminator has no use for timesteps and refuses them.
    With ``num_classes``, ``labels`` (B,) add the product of the pooled features with a vector of
    each class to the logit (projection: Miyato & Koyama 2018, Eq. 3); the vectors start at zero.
    """

    def __init__(
        self,
        in_channels: int,
        channels: list[int],
        dropout: float,
        noise_conditioned: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "channels": list(channels), "dropout": dropout}
        if noise_conditioned:  # absent otherwise: the checkpoint is that of an older version
            self.config["noise_conditioned"] = True
        if num_classes:
            self.config["num_classes"] = num_classes
        levels: list[nn.Module] = []
        width = in_channels
        for outside in channels:
            levels += [
                nn.Conv2d(width, outside, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(outside, outside, 4, stride=2, padding=1),
                nn.GroupNorm(1, outside),
                nn.LeakyReLU(0.2),
            ]
            width = outside
        self.features = nn.Sequential(*levels)
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)
        self.time_bias: nn.Sequential | None = None
        if noise_conditioned:
            first = channels[0]
            self.time_bias = nn.Sequential(
                nn.Linear(SINUSOIDS, first), nn.SiLU(), nn.Linear(first, first)
            )
        self.class_vectors: nn.Embedding | None = None
        if num_classes:
            self.class_vectors = nn.Embedding(num_classes, width)
            nn.init.zeros_(self.class_vectors.weight)

    @property
    def noise_conditioned(self) -> bool:
        return self.time_bias is not None

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.classify(self.pool(latents, timesteps), labels)

    def pool(self, latents: torch.Tensor, timesteps: torch.Tensor | None = None) -> torch.Tensor:
        """Features (B, channels[-1]) of each latent by itself."""
        hidden = self.features[0](latents.contiguous(memory_format=torch.channels_last))
        if self.time_bias is not None:
            if timesteps is None:
                timesteps = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
            hidden = hidden + self.time_bias(timestep_features(timesteps))[:, :, None, None]
        elif timesteps is not None:
            raise ValueError("timesteps for a discriminator that is not noise_conditioned")
        pooled: torch.Tensor = self.features[1:](hidden).mean((2, 3))
        return pooled

    def classify(self, pooled: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B,) of the features (B, channels[-1])."""
        pooled = self.dropout(pooled)
        logits: torch.Tensor = self.head(pooled).squeeze(1)
        if (labels is None) != (self.class_vectors is None):
            raise ValueError("labels go with a discriminator of classes, and only with that")
        if self.class_vectors is not None:
            logits = logits + (self.class_vectors(labels) * pooled).sum(1)
        return logits


def discriminator_bce(logits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy per sample, (B,); real: (B,) with 1 for real and 0 for fake."""
    return F.binary_cross_entropy_with_logits(logits, real.to(logits), reduction="none")


def r1_penalty(
    model: Callable[..., torch.Tensor],
    latents: torch.Tensor,
    eps: torch.Tensor,
    sigma: float,
    *told: torch.Tensor | None,
) -> torch.Tensor:
    """|gradient of D|^2 at ``latents`` by a finite difference, per sample, (B,), at least 0.

    R1 (Mescheder et al. 2018, Eq. 9, whose gamma / 2 is our weight) in the form of Lin et
    al. 2025 ("Diffusion Adversarial Post-Training", approximated R1), which needs no second
    derivative: (D(x) - D(x + sigma eps))^2. Divided by sigma^2, its mean over eps ~ N(0, I)
    is |gradient|^2 up to O(sigma^2), so that the weight does not depend on sigma; theirs is
    our weight / sigma^2. ``model`` must be free of dropout: two masks would differ by more
    than sigma does. latents, eps: (B, C, H, W); told: ``model``'s further arguments.
    """
    difference = model(latents, *told) - model(latents + sigma * eps, *told)
    squared: torch.Tensor = (difference / sigma).square()
    return squared


def build_discriminator(
    params: DiscriminatorParams, in_channels: int, seed: int, iteration: int, num_classes: int = 0
) -> Discriminator:
    """Freshly initialised; every iteration starts from other weights."""
    with seeded(seed, "discriminator", iteration):
        return Discriminator(
            in_channels, params.channels, params.dropout, params.noise_conditioned, num_classes
        )


def save_discriminator(path: Path, config: dict[str, Any], weights: dict[str, Any]) -> None:
    save_torch(path, {"config": config, "discriminator": weights})


def load_discriminator(path: Path, latent_channels: int, num_classes: int = 0) -> Discriminator:
    """A frozen discriminator in evaluation mode; UserError unless it takes these latents."""

    def build(content: dict[str, Any]) -> Discriminator:
        model = Discriminator(**content["config"])
        model.load_state_dict(content["discriminator"])
        return model

    model = load_model(path, "discriminator", build)
    if model.config["in_channels"] != latent_channels:
        raise UserError(
            f"{path}: takes {model.config['in_channels']} latent channels, but the model has "
            f"{latent_channels}; remake it with `dvc repro`"
        )
    if model.config.get("num_classes", 0) != num_classes:
        raise UserError(
            f"{path}: is told of {model.config.get('num_classes', 0)} classes, but the images have "
            f"{num_classes}; remake it with `dvc repro`"
        )
    return model.requires_grad_(False).eval()

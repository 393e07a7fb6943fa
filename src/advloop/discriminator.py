"""The discriminator: real latents against generated ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from advloop.errors import UserError
from advloop.io import load_model, save_torch
from advloop.params.discriminator import DiscriminatorParams
from advloop.runtime import seeded


class Discriminator(nn.Module):
    """Convolutions that halve the resolution once a level, then one logit.

    latents (B, C, H, W) in scaled units -> logits (B,); positive means real.
    """

    def __init__(self, in_channels: int, channels: list[int], dropout: float) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "channels": list(channels), "dropout": dropout}
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
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        pooled = self.features(latents).mean((2, 3))
        logits: torch.Tensor = self.head(self.dropout(pooled)).squeeze(1)
        return logits


def discriminator_bce(logits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy per sample, (B,); real: (B,) with 1 for real and 0 for fake."""
    return F.binary_cross_entropy_with_logits(logits, real.to(logits), reduction="none")


def build_discriminator(
    params: DiscriminatorParams, in_channels: int, seed: int, iteration: int
) -> Discriminator:
    """Freshly initialised; every iteration starts from other weights."""
    with seeded(seed, "discriminator", iteration):
        return Discriminator(in_channels, params.channels, params.dropout)


def save_discriminator(path: Path, config: dict[str, Any], weights: dict[str, Any]) -> None:
    save_torch(path, {"config": config, "discriminator": weights})


def load_discriminator(path: Path, latent_channels: int) -> Discriminator:
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
    return model.requires_grad_(False).eval()

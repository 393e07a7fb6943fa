"""The discriminator, which tells real latents from generated ones, its losses and its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.errors import UserError
from advloop.core.files import load_model, save_torch
from advloop.core.random import seeded
from advloop.models.statistics import StatisticsHead, statistics_of
from advloop.params.training import DiscriminatorParams

EMBEDDING = 64  # channels of the timestep embedding: half sines, half cosines


def timestep_embedding(timesteps: torch.Tensor) -> torch.Tensor:
    """Sinusoids (B, EMBEDDING) in [-1, 1] of timesteps (B,) (Vaswani et al. 2017, section 3.5).

    The wavelengths run from 2 pi to 10,000 * 2 pi, both included: neighbouring timesteps differ,
    and so do the ends of the longest schedule.
    """
    # importing diffusers takes 2 s, which a discriminator without noise conditioning saves
    from advloop.models.library import diffusers

    get_timestep_embedding = diffusers.models.embeddings.get_timestep_embedding
    embedding: torch.Tensor = get_timestep_embedding(timesteps, EMBEDDING, downscale_freq_shift=1)
    return embedding


class Discriminator(nn.Module):
    """Convolutions that halve the resolution once a level, then one logit; positive means real.

    noise_conditioned: timesteps (B,) tell how noisy the latents are. Their embedding becomes a
    bias of each channel after the first convolution. Without timesteps, latents count as clean
    (timestep 0).

    num_classes: labels (B,) select a vector of each class, whose product with the pooled features
    is added to the logit (projection: Miyato & Koyama 2018, Eq. 3). The vectors start at zero.
    0: unconditional; labels are then those of captions, and ignored.

    statistics_size: cells a side of latents whose statistics have a network of their own, the
    logit of which is added. 0: convolutions alone.
    """

    def __init__(
        self,
        in_channels: int,
        channels: list[int],
        dropout: float,
        noise_conditioned: bool = False,
        num_classes: int = 0,
        statistics_size: int = 0,
    ) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "channels": list(channels), "dropout": dropout}
        if noise_conditioned:  # only if true, so that older checkpoints keep their bytes
            self.config["noise_conditioned"] = True
        if num_classes:
            self.config["num_classes"] = num_classes
        if statistics_size:
            self.config["statistics_size"] = statistics_size
        levels: list[nn.Module] = []
        width = in_channels
        for out_channels in channels:
            levels += [
                nn.Conv2d(width, out_channels, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(out_channels, out_channels, 4, stride=2, padding=1),
                nn.GroupNorm(1, out_channels),
                nn.LeakyReLU(0.2),
            ]
            width = out_channels
        self.features = nn.Sequential(*levels)
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)
        self.time_bias: nn.Sequential | None = None
        if noise_conditioned:
            first = channels[0]
            self.time_bias = nn.Sequential(
                nn.Linear(EMBEDDING, first), nn.SiLU(), nn.Linear(first, first)
            )
        self.class_vectors: nn.Embedding | None = None
        if num_classes:
            self.class_vectors = nn.Embedding(num_classes, width)
            nn.init.zeros_(self.class_vectors.weight)
        self.statistics: StatisticsHead | None = None
        if statistics_size:
            self.statistics = StatisticsHead(in_channels, statistics_size)

    @property
    def noise_conditioned(self) -> bool:
        return self.time_bias is not None

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B,) of latents (B, C, H, W) in scaled units; timesteps, labels: (B,) int.

        ValueError for timesteps that this discriminator does not take, or labels that it lacks.
        """
        return self.classify(self.pool(latents, timesteps), labels)

    def pool(self, latents: torch.Tensor, timesteps: torch.Tensor | None = None) -> torch.Tensor:
        """What the logits of latents (B, C, H, W) follow from, (B, D), independent of their class.

        The pooled features of the convolutions, D = channels[-1], and then the statistics, if any.
        """
        hidden = self.features[0](latents.contiguous(memory_format=torch.channels_last))
        if self.time_bias is not None:
            if timesteps is None:
                timesteps = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
            hidden = hidden + self.time_bias(timestep_embedding(timesteps))[:, :, None, None]
        elif timesteps is not None:
            raise ValueError("timesteps for a discriminator that is not noise_conditioned")
        pooled: torch.Tensor = self.features[1:](hidden).mean((2, 3))
        if self.statistics is not None:
            pooled = torch.cat([pooled.float(), statistics_of(latents)], 1)
        return pooled

    def classify(self, pooled: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B,) of what ``pool`` gave, (B, D), in float32."""
        if self.statistics is not None:
            pooled, statistics = pooled.tensor_split([self.head.in_features], 1)
        pooled = self.dropout(pooled)
        logits: torch.Tensor = self.head(pooled).squeeze(1)
        if self.class_vectors is not None:
            if labels is None:
                raise ValueError("labels must be given to a class-conditional discriminator")
            logits = logits + (self.class_vectors(labels) * pooled).sum(1)
        if self.statistics is not None:
            logits = logits + self.statistics(statistics)
        return logits


def discriminator_bce(logits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each sample, (B,); real: (B,) with 1 for real and 0 for fake."""
    return F.binary_cross_entropy_with_logits(logits, real.to(logits), reduction="none")


def r1_penalty(
    model: Callable[..., torch.Tensor],
    latents: torch.Tensor,
    eps: torch.Tensor,
    sigma: float,
    *conditions: torch.Tensor | None,
) -> torch.Tensor:
    """|gradient of D|^2 at ``latents``, estimated by a finite difference; (B,), at least 0.

    R1 (Mescheder et al. 2018, Eq. 9, whose gamma / 2 is our weight) in the approximation of Lin
    et al. 2025 ("Diffusion Adversarial Post-Training"), which needs no second derivative:
    (D(x) - D(x + sigma eps))^2. We divide it by sigma^2: its mean over eps ~ N(0, I) is then
    |gradient|^2 up to O(sigma^2), whatever sigma is; their weight is ours / sigma^2.

    latents, eps: (B, C, H, W). conditions: further arguments of ``model``, its timesteps and
    labels. Dropout must be off: two masks would differ by more than sigma does.
    """
    here, there = model(latents, *conditions), model(latents + sigma * eps, *conditions)
    return squared_slope(here, there, sigma)


def squared_slope(here: torch.Tensor, there: torch.Tensor, sigma: float) -> torch.Tensor:
    """((D(x) - D(x + sigma eps)) / sigma)^2 of both logits (B,): see ``r1_penalty``."""
    return ((here - there) / sigma).square()


def build_discriminator(
    params: DiscriminatorParams,
    shape: tuple[int, int, int],
    seed: int,
    iteration: int,
    num_classes: int = 0,
) -> Discriminator:
    """A freshly initialised discriminator of latents of ``shape`` (C, H, H).

    Its weights depend on the seed and the iteration.
    """
    channels, size, _ = shape
    with seeded(seed, "discriminator", iteration):
        return Discriminator(
            channels,
            params.channels,
            params.dropout,
            params.noise_conditioned,
            num_classes,
            size if params.statistics else 0,
        )


def save_discriminator(path: Path, config: dict[str, Any], weights: dict[str, Any]) -> None:
    save_torch(path, {"config": config, "discriminator": weights})


def load_discriminator(path: Path, latent_channels: int, num_classes: int = 0) -> Discriminator:
    """A frozen discriminator in evaluation mode; UserError unless it fits latents and classes."""

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
            f"{path}: knows {model.config.get('num_classes', 0)} classes, but the images have "
            f"{num_classes}; remake it with `dvc repro`"
        )
    return model.requires_grad_(False).eval()

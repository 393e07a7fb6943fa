"""What a diffusion process is to everything else: losses, samplers, objectives and metrics.

A process has T noise levels, its timesteps, from the least noisy one to almost pure noise. It says
what noisy latents are, what the network sees of them, what its output means, and how to sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch

from advloop.core.errors import UserError

Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""model(network's input (B, C, H, W), time (B,)) -> output (B, C, H, W)."""

Step = Callable[[Model, torch.Tensor], torch.Tensor]
"""step(model, latents (B, C, H, W)) -> latents at the next, lower noise level."""

P = TypeVar("P", bound="Process")


@dataclass(frozen=True, eq=False)
class Process(ABC):
    """Base class. B latents are (B, C, H, W); ``timesteps`` are (B,) int in [0, T).

    alpha_bars: (T,), falling: the share of the signal in the variance of noisy latents, if clean
    ones have variance 1.
    """

    alpha_bars: torch.Tensor

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return len(self.alpha_bars)

    def to(self: P, device: torch.device) -> P:
        """The process with its tensors on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {k: v.to(device) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)

    @abstractmethod
    def add_noise(
        self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Noisy latents from clean ones and standard normal noise."""

    @abstractmethod
    def inputs(
        self, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network is given for noisy latents: its input (B, C, H, W) and its time (B,)."""

    @abstractmethod
    def target(self, x0: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The regression target of the network's output."""

    @abstractmethod
    def predict_x0(
        self, output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Clean latents that an output implies, unclipped, differentiable in ``output``."""

    @abstractmethod
    def steps(self, count: int) -> Sequence[Step]:
        """The deterministic sampler's ``count`` >= 1 steps, with ``calls`` network calls in all.

        The first takes what ``start`` gives, the last returns clean latents. Every step is
        differentiable in the latents and in the model's weights.
        """

    def calls(self, count: int) -> int:
        """Network calls of ``steps``."""
        return count

    def preview_steps(self, count: int, stream: torch.Generator) -> Sequence[Step]:  # noqa: ARG002
        """As ``steps``, of a sampler that may draw noise from ``stream``; here it draws none."""
        return self.steps(count)

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """The latents that sampling starts with, from standard normal noise."""
        return noise

    def timestep_limit(self, min_alpha_bar: float, key: str) -> int:
        """The timesteps of [0, limit) have alpha_bar >= min_alpha_bar; returns limit >= 1.

        key: the parameter that holds min_alpha_bar. UserError names it if no timestep qualifies.
        """
        limit = int((self.alpha_bars >= min_alpha_bar).sum())
        if limit == 0:
            raise UserError(
                f"{key}={min_alpha_bar}: no timestep of this diffusion has an alpha_bar that high; "
                f"lower it to at most {float(self.alpha_bars.max()):.4f}"
            )
        return limit


def over_batch(levels: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Each sample's entry of ``levels`` (T,): (B, 1, 1, 1), on the device of ``like``."""
    return levels.to(like.device)[timesteps].view(-1, 1, 1, 1)


def stratified_timesteps(
    count: int, num_train_timesteps: int, stream: torch.Generator
) -> torch.Tensor:
    """Random timesteps (count,) int64 in [0, T), ascending: one in each of ``count`` equal strata.

    For training. The loss of a batch varies less than with independent draws, as with the
    low-discrepancy sampler of Kingma et al. 2021 (appendix I.1).
    """
    fractions = (torch.arange(count) + torch.rand(count, generator=stream)) / count
    return (fractions * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)


def midpoint_timesteps(count: int, limit: int, stream: torch.Generator) -> torch.Tensor:
    """Timesteps (count,) int64 at the midpoints of ``count`` equal strata of [0, limit).

    For measurements: the same timesteps whatever the seed, in a random order, so that they are
    unrelated to the order of the samples.
    """
    timesteps = ((torch.arange(count, dtype=torch.float64) + 0.5) * limit / count).long()
    return timesteps[torch.randperm(count, generator=stream)]

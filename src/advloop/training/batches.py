"""Batches of noised latents for one epoch, from random streams of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from advloop.core.random import batches, drawn_on, shuffled_rows
from advloop.diffusion.criterion import Noised
from advloop.diffusion.process import stratified_timesteps
from advloop.infra.prefetch import prefetch, to_device


@dataclass(frozen=True)
class Side:
    """Latents (N, C, H, W) float32, and their classes (N,) int64 where the model is conditional."""

    latents: torch.Tensor
    labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Epoch:
    """One epoch of ``count`` rows of ``side``, in batches of ``batch_size`` on ``device``.

    rows: the stream of the row order, a permutation that is cut or repeated to ``count``.
    noise: the stream of timesteps in [0, num_timesteps), and on a CPU of the noise; a GPU draws the
    noise itself, from a stream with the same seed.
    """

    side: Side
    count: int
    batch_size: int
    num_timesteps: int
    device: torch.device
    rows: torch.Generator
    noise: torch.Generator

    def __iter__(self) -> Iterator[Noised]:
        """The batches; on a GPU the next one is prepared while the current one runs."""
        order = shuffled_rows(self.count, len(self.side), self.rows)
        parts = batches(self.count, self.batch_size)
        eps = drawn_on(self.device, self.noise)
        made = (self._batch(order[part.start : part.stop], eps) for part in parts)
        return prefetch(made) if self.device.type == "cuda" else made

    def _batch(self, rows: torch.Tensor, stream: torch.Generator) -> Noised:
        x0 = self.side.latents[rows]
        eps = torch.randn(x0.shape, generator=stream, device=stream.device)
        timesteps = stratified_timesteps(len(x0), self.num_timesteps, self.noise)
        timesteps = timesteps[torch.randperm(len(x0), generator=self.noise)]  # they ascend
        labels = None if self.side.labels is None else self.side.labels[rows]
        return Noised(
            to_device(x0, self.device),
            to_device(eps, self.device),
            to_device(timesteps, self.device),
            None if labels is None else to_device(labels, self.device),
        )

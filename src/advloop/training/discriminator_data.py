"""What the discriminator is trained and validated on; no group of images is on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from advloop.core.errors import UserError
from advloop.core.random import generator
from advloop.data.classes import Classes
from advloop.data.latents import Gathered, Rows
from advloop.data.shares import count_val_fakes
from advloop.diffusion.process import Process, midpoint_timesteps
from advloop.params.training import TrainDiscParams

KEPT = 0.5  # of the replay buffer, from one iteration to the next


class Inputs(NamedTuple):
    """The discriminator's arguments."""

    latents: torch.Tensor
    timesteps: torch.Tensor | None
    labels: torch.Tensor | None


@dataclass(frozen=True)
class DiscData:
    """Reals and fakes to train or to validate on.

    latents: (N, C, H, W) float32, in memory or gathered from files. real: (N,), 1 real, 0 fake.
    timesteps: (N,), how noisy each latent is; None: clean. labels: (N,) classes, or None.
    """

    latents: Rows
    real: torch.Tensor
    timesteps: torch.Tensor | None = None
    labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def inputs(self, rows: torch.Tensor | slice) -> Inputs:
        return Inputs(
            self.latents[rows],
            None if self.timesteps is None else self.timesteps[rows],
            None if self.labels is None else self.labels[rows],
        )


@dataclass(frozen=True)
class Reals:
    """Latents (N, C, H, W) of images, the split of each, and its class (N,) if images have one."""

    latents: Rows
    splits: Sequence[str]
    labels: torch.Tensor | None = None


@dataclass(frozen=True)
class Fakes:
    """Generated latents (N, C, H, W); None if unused.

    samples: of the current model. predicted: as many of its one-step predictions,
    of the same classes. earlier: the replay buffer of the iteration before. labels,
    earlier_labels: classes (N,).
    """

    samples: Rows
    predicted: Rows | None = None
    earlier: Rows | None = None
    labels: torch.Tensor | None = None
    earlier_labels: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent, (C, H, W)."""
        _, channels, height, width = self.samples.shape
        return channels, height, width


def make_sides(
    reals: Reals,
    fakes: Fakes,
    params: TrainDiscParams,
    seed: int,
    iteration: int,
    device: torch.device,
) -> tuple[dict[str, DiscData], Counter[str]]:
    """The sides ``train`` and ``val``, reals first, and the numbers of training fakes by kind.

    Each side has as many reals as fakes. If latents have classes, it has as many of every class:
    otherwise a class-conditional discriminator could recognise fakes by the frequency of their
    class. Fakes of earlier iterations are for training only, so that validation measures the
    current model. A GPU holds the latents; a CPU reads each batch from the files.
    Raises UserError if a side would be empty.
    """
    counts: Counter[str] = Counter()
    real_parts: dict[str, list[Part]] = {"train": [], "val": []}
    fake_parts: dict[str, list[Part]] = {"train": [], "val": []}
    labels: dict[str, list[torch.Tensor]] = {"train": [], "val": []}
    for key, own_reals, own_fakes in _by_class(reals, fakes):
        pairs = pair_rows(own_reals.splits, len(own_fakes.samples), seed, iteration, *key)
        for side, (real_rows, fake_rows) in pairs.items():
            used = own_fakes if side == "train" else replace(own_fakes, earlier=None)
            stream = generator(seed, "split", iteration, *key, "replay")
            parts, found = mix_fakes(used, fake_rows, params, stream)
            real_parts[side].append((own_reals.latents, real_rows))
            fake_parts[side] += parts
            labels[side] += [torch.full((len(real_rows),), label) for label in key]
            if side == "train":
                counts.update(found)
    sides = {}
    for side in ("train", "val"):
        latents = Gathered(real_parts[side] + fake_parts[side])
        if len(latents) == 0:
            raise UserError(
                f"train_disc: the {side} side has no pair of a real and a fake latent, out of "
                f"{reals.splits.count(side)} real ones there and {len(fakes.samples)} fake ones "
                "for both; raise generate.num_samples or add images"
            )
        real = (torch.arange(len(latents)) < len(latents) // 2).float()
        sides[side] = DiscData(
            latents if device.type == "cpu" else latents[:].to(device),
            real.to(device),
            labels=torch.cat(labels[side] * 2).to(device) if labels[side] else None,
        )
    return sides, counts


Part = tuple[Rows, torch.Tensor]
"""Latents, and rows of them."""


def _by_class(reals: Reals, fakes: Fakes) -> Iterator[tuple[tuple[int, ...], Reals, Fakes]]:
    """((label,), its reals, its fakes) of every class; without classes ((), reals, fakes)."""
    if reals.labels is None or fakes.labels is None:
        yield (), reals, fakes
        return

    def of_class(latents: Rows | None, labels: torch.Tensor | None) -> Rows | None:
        if latents is None or labels is None:
            return None
        return Gathered([(latents, (labels == label).nonzero().squeeze(1))])

    for label in range(int(max(reals.labels.max(), fakes.labels.max())) + 1):
        own, samples = of_class(reals.latents, reals.labels), of_class(fakes.samples, fakes.labels)
        assert own is not None
        assert samples is not None
        splits = np.array(reals.splits)[(reals.labels == label).numpy()].tolist()
        predicted = of_class(fakes.predicted, fakes.labels)
        earlier = of_class(fakes.earlier, fakes.earlier_labels)
        yield (label,), Reals(own, splits), Fakes(samples, predicted, earlier)


def pair_rows(
    splits: Sequence[str], num_fake: int, seed: int, iteration: int, *key: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows of (real, fake) latents for ``train`` and ``val``, shuffled and balanced.

    Reals keep the split that stage prepare gave their group, so that no group is on both sides;
    fakes are shuffled and divided in the same proportion. On each side both classes have equally
    many rows: the larger class gives up rows at random. A side may be empty.
    """
    stream = generator(seed, "split", iteration, *key)
    split_of_rows = np.array(splits)
    reals = {}
    for side in ("train", "val"):
        rows = torch.from_numpy(np.flatnonzero(split_of_rows == side))
        reals[side] = rows[torch.randperm(len(rows), generator=stream)]
    order = torch.randperm(num_fake, generator=stream)
    cut = count_val_fakes(num_fake, len(reals["train"]), len(reals["val"]))
    fakes = {"train": order[cut:], "val": order[:cut]}
    counts = {side: min(len(reals[side]), len(fakes[side])) for side in reals}
    return {side: (reals[side][:count], fakes[side][:count]) for side, count in counts.items()}


def mix_fakes(
    fakes: Fakes, rows: torch.Tensor, params: TrainDiscParams, stream: torch.Generator
) -> tuple[list[Part], dict[str, int]]:
    """The fakes of a side with the shuffled ``rows`` (n,), n in all, and their numbers by kind.

    Row k of the fakes is used either as sample k or as prediction k, so that the sides share
    neither. (The predictions start from training images, and turned and mirrored copies of one
    image may have rows on both sides.) Replayed fakes take the place of further samples.
    """
    replayed = predicted = 0
    parts: list[Part] = []
    if fakes.earlier is not None:
        replayed = min(round(params.replay_fraction * len(rows)), len(fakes.earlier))
        order = torch.randperm(len(fakes.earlier), generator=stream)
        parts.append((fakes.earlier, order[:replayed]))
    if fakes.predicted is not None:
        predicted = round(params.predicted_fraction * len(rows))
        parts.append((fakes.predicted, rows[replayed : replayed + predicted]))
    parts.append((fakes.samples, rows[replayed + predicted :]))
    counts = {"samples": len(parts[-1][1]), "predicted": predicted, "replayed": replayed}
    return parts, counts


def update_replay(fakes: Rows, earlier: Rows | None, seed: int, iteration: int) -> torch.Tensor:
    """The replay buffer after ``iteration``: (N, …), as many rows as ``fakes`` (N, …).

    KEPT of it is from the buffer of the iteration before, the rest from ``fakes``, both chosen at
    random and without repetition. So iteration i - k has a share of 2^-(k + 1), and the first
    iteration the remainder. Without an ``earlier`` buffer it is ``fakes`` in random order.
    """
    stream = generator(seed, "replay", iteration)
    parts = []
    if earlier is not None:
        kept = min(round(KEPT * len(fakes)), len(earlier))
        parts.append(earlier[torch.randperm(len(earlier), generator=stream)[:kept]])
    fresh = len(fakes) - sum(map(len, parts))
    parts.append(fakes[torch.randperm(len(fakes), generator=stream)[:fresh]])
    return torch.cat(parts)


def replay_labels(classes: Classes, count: int, seed: int, iteration: int) -> torch.Tensor:
    """Classes (count,) of the buffer after ``iteration``, with ``count`` fakes each iteration."""
    labels = None
    for index in range(iteration + 1):
        labels = update_replay(classes.fake_labels(count, seed, index), labels, seed, index)
    assert labels is not None
    return labels


def renoise(data: DiscData, process: Process, limit: int, stream: torch.Generator) -> DiscData:
    """Every row, real or fake, noised to a timestep in [0, limit).

    The timesteps cover the range evenly and are assigned to rows at random.
    """
    timesteps = midpoint_timesteps(len(data), limit, stream).to(data.latents.device)
    latents = data.latents[:]
    eps = torch.randn(latents.shape, generator=stream).to(latents.device)
    noisy = process.add_noise(latents, eps, timesteps)
    return replace(data, latents=noisy, timesteps=timesteps)

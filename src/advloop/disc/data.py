"""What the discriminator is trained and validated on, without leaking groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from advloop.core.errors import UserError
from advloop.core.runtime import generator
from advloop.disc.gathered import Gathered, Rows
from advloop.params.discriminator import TrainDiscParams
from advloop.schedule import add_noise, spread_timesteps

Shown = tuple[torch.Tensor, *tuple[torch.Tensor | None, ...]]


@dataclass(frozen=True)
class DiscData:
    """One side of the split. latents: (N, C, H, W) float32, in memory or gathered from files.

    real: (N,) 1 real, 0 fake.
    timesteps: (N,) how noisy each latent is, or None for a discriminator that is not told.
    labels: (N,) the class of each, or None where latents have none.
    """

    latents: Rows
    real: torch.Tensor
    timesteps: torch.Tensor | None = None
    labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def shown(self, rows: torch.Tensor | slice) -> Shown:
        """The discriminator's arguments for these rows."""
        timesteps = None if self.timesteps is None else self.timesteps[rows]
        if self.labels is not None:
            return self.latents[rows], timesteps, self.labels[rows]
        return (self.latents[rows], *([] if timesteps is None else [timesteps]))


@dataclass(frozen=True)
class Fakes:
    """Where the fake class comes from; tensors (N, C, H, W), None where unused.

    samples: DDIM samples of the current model. predicted: as many of its one-step
    predictions. earlier: the replay buffer of the iteration before.
    """

    samples: Rows
    predicted: Rows | None = None
    earlier: Rows | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent, (C, H, W)."""
        _, channels, height, width = self.samples.shape
        return channels, height, width


def split_rows(
    real_splits: list[str], num_fake: int, seed: int, iteration: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows of (real, fake) latents for ``train`` and ``val``, shuffled and balanced.

    Reals keep the side that stage prepare gave their group, so that no group stands on
    both; fakes are shuffled and cut. On each side both classes have equally many rows:
    the larger class gives up rows at random. Raises UserError if a side would be empty.
    """
    sides = pair_rows(real_splits, num_fake, seed, iteration)
    check_sides({name: len(rows) for name, (rows, _) in sides.items()}, real_splits, num_fake)
    return sides


def check_sides(counts: Mapping[str, int], real_splits: list[str], num_fake: int) -> None:
    """Raise UserError where one of the two sides has no row."""
    for side in ("train", "val"):
        if counts[side] == 0:
            raise UserError(
                f"train_disc: the {side} side has no pair of a real and a fake latent, out of "
                f"{real_splits.count(side)} real ones there and {num_fake} fake ones for both; "
                "raise generate.num_samples or add images"
            )


def pair_rows(
    real_splits: list[str], num_fake: int, seed: int, iteration: int, *key: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """``split_rows`` with a stream for (seed, iteration, *key), where a side may be empty."""
    stream = generator(seed, "split", iteration, *key)
    splits = np.array(real_splits)
    reals = {side: torch.from_numpy(np.flatnonzero(splits == side)) for side in ("train", "val")}
    reals = {
        side: rows[torch.randperm(len(rows), generator=stream)] for side, rows in reals.items()
    }
    order = torch.randperm(num_fake, generator=stream)
    num_real = sum(len(rows) for rows in reals.values())
    cut = round(num_fake * len(reals["val"]) / max(1, num_real))
    fakes = {"val": order[:cut], "train": order[cut:]}
    result = {}
    for side in ("train", "val"):
        count = min(len(reals[side]), len(fakes[side]))
        result[side] = (reals[side][:count], fakes[side][:count])
    return result


def mix_fakes(
    fakes: Fakes, rows: torch.Tensor, params: TrainDiscParams, stream: torch.Generator
) -> tuple[list[tuple[Rows, torch.Tensor]], dict[str, int]]:
    """(tensor, rows of it) for all n fakes of a side with the shuffled ``rows`` (n,).

    And how many of them are which.

    Index k of the fake class is either DDIM sample k or prediction k, so that the sides
    share neither; the replayed ones take the place of further samples. Off, the result is
    ``rows`` of ``fakes.samples``.
    """
    replayed = predicted = 0
    parts: list[tuple[Rows, torch.Tensor]] = []
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


def make_sides(
    real: Rows,
    fakes: Fakes,
    real_splits: list[str],
    params: TrainDiscParams,
    seed: int,
    iteration: int,
    where: torch.device,
) -> tuple[dict[str, DiscData], dict[str, int]]:
    """``train`` and ``val``, real first, and what the fakes of ``train`` are.

    real_splits: the side of each real. Fakes of earlier iterations train alone: validation
    is about the current model, and comparable whatever is replayed. Predictions stand on
    both sides; their sources are training latents, on the validation side too, so that
    their rows are disjoint but an image may have turned and mirrored copies on both.
    A GPU holds them; a CPU reads each batch from the files that the tensors are mapped to.
    """
    paired = split_rows(real_splits, len(fakes.samples), seed, iteration)
    return fill_sides(paired, real, fakes, params, (seed, iteration), where)


def fill_sides(
    paired: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    real: Rows,
    fakes: Fakes,
    params: TrainDiscParams,
    key: tuple[int, ...],
    where: torch.device,
) -> tuple[dict[str, DiscData], dict[str, int]]:
    """``make_sides`` of rows that are ``paired`` already; key: (seed, iteration, …)."""
    sides, counts = {}, {}
    seed, iteration, *more = key
    for name, (reals, rows) in paired.items():
        own = fakes if name == "train" else Fakes(fakes.samples, fakes.predicted)
        chosen, counts[name] = mix_fakes(
            own, rows, params, generator(seed, "split", iteration, *more, "replay")
        )
        latents = Gathered([(real, reals), *chosen])
        labels = (torch.arange(len(latents)) < len(reals)).float()
        held = latents if where.type == "cpu" else latents[:].to(where)
        sides[name] = DiscData(held, labels.to(where))
    return sides, counts["train"]


def renoise(
    data: DiscData, alphas_cumprod: torch.Tensor, limit: int, stream: torch.Generator
) -> DiscData:
    """Every row, real and fake alike, noised (DDPM, Eq. 4) to a timestep in [0, limit).

    The timesteps are spread evenly over the rows, whatever their class.
    """
    timesteps = spread_timesteps(len(data), limit, stream).to(data.latents.device)
    latents = data.latents[:]
    eps = torch.randn(latents.shape, generator=stream).to(latents.device)
    noisy = add_noise(latents, eps, timesteps, alphas_cumprod)
    return replace(data, latents=noisy, timesteps=timesteps)

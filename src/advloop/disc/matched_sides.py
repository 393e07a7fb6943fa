"""Both sides of the discriminator's data where latents have classes: matched class by class."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from advloop.disc.data import DiscData, Fakes, check_sides, fill_sides, pair_rows
from advloop.disc.gathered import Gathered, Rows
from advloop.params.discriminator import TrainDiscParams


@dataclass(frozen=True)
class SideLabels:
    """Classes (N,) int64 of the reals, of fakes and predictions, and of the earlier fakes."""

    real: torch.Tensor
    fake: torch.Tensor
    earlier: torch.Tensor | None = None


def make_matched_sides(
    real: Rows,
    fakes: Fakes,
    real_splits: list[str],
    labels: SideLabels,
    params: TrainDiscParams,
    seed: int,
    iteration: int,
    where: torch.device,
) -> tuple[dict[str, DiscData], dict[str, int]]:
    """``make_sides``, where each side has as many reals as fakes of every class.

    Otherwise a discriminator that is told the class could tell fakes by how frequent theirs is.
    A class that is short of one kind on a side gives up rows of the other there, all if need be.
    """
    made: dict[str, list[DiscData]] = {"train": [], "val": []}
    totals = {"samples": 0, "predicted": 0, "replayed": 0}
    for label in range(int(max(labels.real.max(), labels.fake.max())) + 1):
        reals = (labels.real == label).nonzero().squeeze(1)
        rows = (labels.fake == label).nonzero().squeeze(1)
        own = Fakes(
            Gathered([(fakes.samples, rows)]),
            None if fakes.predicted is None else Gathered([(fakes.predicted, rows)]),
            None
            if fakes.earlier is None or labels.earlier is None
            else Gathered([(fakes.earlier, (labels.earlier == label).nonzero().squeeze(1))]),
        )
        splits = [real_splits[row] for row in reals.tolist()]
        paired = pair_rows(splits, len(rows), seed, iteration, label)
        sides, counts = fill_sides(
            paired,
            Gathered([(real, reals)]),
            own,
            params,
            (seed, iteration, label),
            where,
        )
        for name, side in sides.items():
            told = torch.full((len(side),), label, device=where)
            made[name].append(replace(side, labels=told))
        totals = {kind: count + counts[kind] for kind, count in totals.items()}
    joined = {name: _join(parts) for name, parts in made.items()}
    check_sides({name: len(side) for name, side in joined.items()}, real_splits, len(fakes.samples))
    return joined, totals


def _join(parts: list[DiscData]) -> DiscData:
    """Rows of all parts, real first."""
    real = torch.cat([part.real for part in parts])
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    order = torch.argsort(real, descending=True, stable=True)
    held = [part.latents for part in parts if isinstance(part.latents, torch.Tensor)]
    latents: Rows
    if held:  # by a GPU
        latents = torch.cat(held)[order]
    else:
        joined = Gathered([(part.latents, torch.arange(len(part))) for part in parts])
        latents = Gathered([(joined, order)])
    return DiscData(latents, real[order], labels=labels[order])

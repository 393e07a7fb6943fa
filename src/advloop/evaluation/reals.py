"""The evaluation-only reals that every model of a run is measured against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.core.files import load_model, save_torch
from advloop.evaluation.neighbours import nearest_rows
from advloop.evaluation.views import RealSet, Views
from advloop.params.evaluation import EvaluateParams

FILE = "reals.pt"
COPY = 1e-3  # two latents are the same below this distance over sqrt(D)


@dataclass(frozen=True)
class Reals:
    """test: what scores are reported against; tune: what selects. They share no group.

    count: how many images every measured set has. latents: (N, C, H, W) of the images of test
    without augmentation. nearest: their median distance to the nearest training latent.
    """

    test: RealSet
    tune: RealSet
    count: int
    latents: torch.Tensor
    nearest: float

    def views(self, params: EvaluateParams, seed: int, device: torch.device) -> dict[str, Views]:
        """The views by split."""
        sets = {"test": self.test, "tune": self.tune}
        return {split: Views(one, params, seed, device) for split, one in sets.items()}


def nearest_training(latents: torch.Tensor, train: torch.Tensor, batch_size: int) -> float:
    """Median distance of latents (N, C, H, W) to the nearest of train (M, C, H, W).

    UserError if half of them are copies. If latents have mean square 1 and D elements, two
    independent ones are about sqrt(2 D) apart; two equal ones at most 5e-4 sqrt(D), by rounding
    in float32.
    """
    nearest = float(nearest_rows(latents, train, batch_size)[0].median())
    if not nearest > COPY * latents[0].numel() ** 0.5:
        raise UserError(
            "data.source: at least half of the test images are copies of training images; remove "
            "the copies, or put them into the group of the original"
        )
    return nearest


def save_reals(path: Path, reals: Reals) -> None:
    content: dict[str, Any] = {"count": reals.count, "nearest": reals.nearest}
    content["latents"] = reals.latents
    save_torch(path, content | {"test": _content(reals.test), "tune": _content(reals.tune)})


def _content(part: RealSet) -> dict[str, Any]:
    content = {
        "images": torch.from_numpy(part.images),
        "features": part.features,
        "groups": list(part.groups),
        "latent_statistics": part.latent_statistics.cpu(),
        "image_statistics": part.image_statistics.cpu(),
    }
    return content | ({} if part.labels is None else {"labels": part.labels})


def load_reals(path: Path) -> Reals:
    """What ``save_reals`` wrote; UserError if the file is damaged."""

    def build(content: dict[str, Any]) -> Reals:
        if not 0 < content["nearest"] < math.inf:
            raise ValueError(f"nearest={content['nearest']} must be positive")
        if not isinstance(content["count"], int) or content["count"] < 1:
            raise ValueError(f"count={content['count']} must be a whole number of images")
        test, tune = (_build(content[split], split) for split in ("test", "tune"))
        latents = content["latents"]
        wanted = (torch.float32, 4, len(test.images))
        if (latents.dtype, latents.ndim, len(latents)) != wanted:
            raise ValueError(f"its latents are not (N, C, H, W) float32 of {wanted[2]} images")
        return Reals(test, tune, content["count"], latents, content["nearest"])

    return load_model(path, "set of evaluation reals", build)


def _build(content: dict[str, Any], split: str) -> RealSet:
    images, groups = content["images"], content["groups"]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"its images of {split} are not (N, S, S, 3) uint8")
    if not all(isinstance(group, str) for group in groups):
        raise TypeError(f"its groups of {split} have no names")
    for name, rows in (("features", 2), ("latent_statistics", 3), ("image_statistics", 3)):
        if content[name].ndim != rows or content[name].dtype != torch.float32:
            raise ValueError(f"its {name} of {split} are not float32 in {rows} dimensions")
    sizes = [len(groups), len(content["features"])]
    sizes += [content[name].shape[1] for name in ("latent_statistics", "image_statistics")]
    if set(sizes) != {len(images)}:
        raise ValueError(f"it has {len(images)} images of {split}, but {min(sizes)} rows of others")
    labels = content.get("labels")
    if labels is not None and (labels.dtype != torch.int64 or labels.shape != (len(groups),)):
        raise ValueError(f"its labels of {split} are not (N,) int64 for {len(groups)} images")
    return RealSet(
        images.numpy(),
        content["features"],
        groups,
        content["latent_statistics"],
        content["image_statistics"],
        labels,
    )

"""The evaluation-only reals that every model of a run is measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.core.files import load_model, save_torch
from advloop.evaluation.neighbours import nearest_rows

FILE = "reals.pt"
COPY = 1e-3  # two latents are the same below this distance over sqrt(D)


@dataclass(frozen=True)
class Reals:
    """features: by split, ``tune`` and ``test``, (N, D).

    latents: (V, N, C, H, W), the test images in V variants of the training set's augmentation,
    the first without change; groups: (N,). nearest: the median distance of the first variant to
    the nearest training latent. labels: (N,) classes of features["test"], or None.
    """

    features: Mapping[str, torch.Tensor]
    latents: torch.Tensor
    groups: Sequence[str]
    nearest: float
    labels: torch.Tensor | None = None


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
    """Write all but the latents, which are those of stage encode_dataset."""
    content = {"features": dict(reals.features), "groups": list(reals.groups)}
    labels = {} if reals.labels is None else {"labels": reals.labels}
    save_torch(path, content | {"nearest": reals.nearest} | labels)


def load_reals(path: Path, latents: torch.Tensor) -> Reals:
    """What ``save_reals`` wrote, with latents (V * N, C, H, W), variant by variant.

    UserError if the file is damaged or belongs to other latents.
    """

    def build(content: dict[str, Any]) -> Reals:
        features, groups = content["features"], content["groups"]
        for split in ("tune", "test"):
            if features[split].ndim != 2 or features[split].dtype != torch.float32:
                raise ValueError(f"its features of {split} are not (N, D) float32")
        if not all(isinstance(group, str) for group in groups):
            raise TypeError("its groups have no names")
        if len(features["test"]) != len(groups):
            raise ValueError(
                f"it has features of {len(features['test'])} images, not {len(groups)}"
            )
        if not 0 < content["nearest"] < math.inf:
            raise ValueError(f"nearest={content['nearest']} must be positive")
        labels = content.get("labels")
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != (len(groups),)):
            raise ValueError(f"its labels are not (N,) int64 for {len(groups)} images")
        variants = latents.unflatten(0, (-1, len(groups)))
        return Reals(features, variants, groups, content["nearest"], labels)

    return load_model(path, "set of evaluation reals", build)

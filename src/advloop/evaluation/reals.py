"""The evaluation-only reals that every model of a run is measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from advloop.augment import augment_at_random
from advloop.core.errors import UserError
from advloop.core.io import load_model, save_torch
from advloop.dataset import Dataset
from advloop.evaluation.neighbours import nearest_distances

COPY = 1e-3  # distance, over sqrt(D), below which two latents are the same


@dataclass(frozen=True)
class Reals:
    """The evaluation-only reals.

    features: (N, D) of the images of ``tune`` and of ``test``. latents: (V, N, C, H, W), the
    test images in every variant of the augmentation that the training set has, variant 0
    as they are; groups: their N groups. nearest: median distance of variant 0 to the
    nearest training latent. labels: (N,) classes of the features of ``test``, in their order;
    None where images have none.
    """

    features: Mapping[str, torch.Tensor]
    latents: torch.Tensor
    groups: Sequence[str]
    nearest: float
    labels: torch.Tensor | None = None


def draw_images(
    dataset: Dataset,
    split: str,
    augmentation: str,
    stream: torch.Generator,
    count: int | None = None,
) -> npt.NDArray[np.uint8]:
    """``count`` images of a split (None: all), as the model saw its training set.

    Each in an orientation of its own, and in random order: a manifest is sorted, so that
    parts of rows in its order would be different collections.
    """
    rows = draw_rows(dataset, split, stream, count)
    return augment_at_random(dataset.images[rows], augmentation, stream)


def draw_rows(
    dataset: Dataset, split: str, stream: torch.Generator, count: int | None = None
) -> npt.NDArray[np.int64]:
    """The rows that ``draw_images`` takes, from a stream in the same state."""
    rows = dataset.rows(split)
    chosen: npt.NDArray[np.int64] = rows[
        torch.randperm(len(rows), generator=stream)[:count].numpy()
    ]
    return chosen


def nearest_training(latents: torch.Tensor, train: torch.Tensor, batch_size: int) -> float:
    """Median distance of latents (N, C, H, W) to the nearest of train (M, C, H, W).

    Raises UserError where half of them are copies. Of latents with mean square 1 and D
    elements, independent ones lie sqrt(2 D) apart, and equal ones, by rounding in float32,
    up to 5e-4 sqrt(D).
    """
    nearest = float(nearest_distances(latents, train, batch_size).median())
    if not nearest > COPY * latents[0].numel() ** 0.5:
        raise UserError(
            "data.source: half of the evaluation-only images or more are copies of training "
            "images; remove the copies, or give them the group of the original"
        )
    return nearest


def save_reals(path: Path, reals: Reals) -> None:
    """All but the latents, which stage encode_dataset keeps."""
    content = {"features": dict(reals.features), "groups": list(reals.groups)}
    labels = {} if reals.labels is None else {"labels": reals.labels}
    save_torch(path, content | {"nearest": reals.nearest} | labels)


def load_reals(path: Path, latents: torch.Tensor) -> Reals:
    """What ``save_reals`` wrote, with the test latents (V * N, C, H, W), variant by variant."""

    def build(content: dict[str, Any]) -> Reals:
        features, groups = content["features"], content["groups"]
        for split in ("tune", "test"):
            if features[split].ndim != 2 or features[split].dtype != torch.float32:
                raise ValueError(f"its features of {split} are no rows of float32")
        if not all(isinstance(group, str) for group in groups):
            raise TypeError("its groups are no names")
        if len(features["test"]) != len(groups):
            raise ValueError(
                f"it has features of {len(features['test'])} images, not {len(groups)}"
            )
        if not 0 < content["nearest"] < math.inf:
            raise ValueError(f"nearest={content['nearest']} must be positive")
        labels = content.get("labels")
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != (len(groups),)):
            raise ValueError(f"its labels are not those of {len(groups)} images")
        variants = latents.unflatten(0, (-1, len(groups)))
        return Reals(features, variants, groups, content["nearest"], labels)

    return load_model(path, "set of evaluation reals", build)

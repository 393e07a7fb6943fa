"""The evaluation-only reals that every model of a run is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from advloop.augment import augment_at_random
from advloop.dataset import Dataset
from advloop.io import load_model, save_torch


@dataclass(frozen=True)
class Reals:
    """The evaluation-only reals.

    features: (N, D) of the images of ``tune`` and of ``test``. latents: (V, N, C, H, W), the
    test images in every variant of the augmentation that the training set has, variant 0
    as they are; groups: their N groups. nearest: median distance of variant 0 to the
    nearest training latent.
    """

    features: Mapping[str, torch.Tensor]
    latents: torch.Tensor
    groups: Sequence[str]
    nearest: float


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
    rows = dataset.rows(split)
    rows = rows[torch.randperm(len(rows), generator=stream)[:count].numpy()]
    return augment_at_random(dataset.images[rows], augmentation, stream)


def save_reals(path: Path, reals: Reals) -> None:
    """All but the latents, which stage encode_dataset keeps."""
    content = {"features": dict(reals.features), "groups": list(reals.groups)}
    save_torch(path, content | {"nearest": reals.nearest})


def load_reals(path: Path, latents: torch.Tensor) -> Reals:
    """What ``save_reals`` wrote, with the test latents (V * N, C, H, W), variant by variant."""

    def build(content: dict[str, Any]) -> Reals:
        rows = latents.unflatten(0, (-1, len(content["groups"])))
        return Reals(content["features"], rows, content["groups"], content["nearest"])

    return load_model(path, "set of evaluation reals", build)

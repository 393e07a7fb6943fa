"""Read latents and the scale that they carry."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from advloop.core.errors import UserError
from advloop.core.io import load_tensor, read_json


def read_scale(path: Path) -> tuple[float, float]:
    """Scale and shift of the latents, as stage encode_dataset wrote them."""
    content = read_json(path)
    values = content if isinstance(content, dict) else {}
    scale, shift = values.get("latent_scale"), values.get("latent_shift")
    if not isinstance(scale, float) or not 0 < scale < math.inf:
        raise UserError(f"{path}: latent_scale={scale} must be positive; run `dvc repro`")
    if not isinstance(shift, float) or not math.isfinite(shift):
        raise UserError(f"{path}: latent_shift={shift} must be a number; run `dvc repro`")
    return scale, shift


def load_latents(path: Path, shape: tuple[int, int, int] | None = None) -> torch.Tensor:
    """Latents (N, C, H, W) float32, memory-mapped; UserError unless they have ``shape``.

    N is at least 1: an empty buffer of fakes is none that a stage reads.
    """
    latents = load_tensor(path)
    if len(latents) == 0:
        raise UserError(f"{path}: holds no latent; remake it with `dvc repro`")
    if shape is not None and tuple(latents.shape[1:]) != tuple(shape):
        raise UserError(
            f"{path}: latents {list(latents.shape[1:])} are not the {list(shape)} that the model "
            "takes; it is of another scale, remake it with `dvc repro`"
        )
    if latents.shape[2] != latents.shape[3]:
        raise UserError(
            f"{path}: latents {list(latents.shape[1:])} are not square; remake it with `dvc repro`"
        )
    return latents

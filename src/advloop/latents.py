"""Encode images into latents on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from advloop.augment import VARIANTS, turned
from advloop.autoencoder import Codec
from advloop.core.errors import UserError
from advloop.core.ranks import in_turns
from advloop.core.resume import RowProgress
from advloop.core.runtime import batches
from advloop.tensor_writer import TensorWriter

Images = npt.NDArray[np.uint8]
Progress = Callable[[Iterable[range]], Iterable[range]]


def latent_scale(codec: Codec, images: Images, rows: npt.NDArray[np.int64], batch: int) -> float:
    """1 / root mean square over every element of the encoded ``rows``; one number."""
    total, count = 0.0, 0
    for part in batches(len(rows), batch):
        encoded = codec.encode(images[rows[part.start : part.stop]])
        total += float(encoded.double().square().sum())
        count += encoded.numel()
    if not total > 0:
        raise UserError("autoencoder: encodes every image to zero; use another autoencoder")
    return float((count / total) ** 0.5)


def encode_rows(
    codec: Codec,
    images: Images,
    rows: npt.NDArray[np.int64],
    batch: int,
    path: Path,
    progress: Progress,
    augmentation: str = "none",
    done: RowProgress | None = None,
) -> tuple[int, ...]:
    """Write the scaled latents of ``rows`` to ``path`` and return their shape (N, C, H, W).

    All variants of an augmentation follow each other: row r of variant k stands at
    k * len(rows) + r. Memory is bounded by the batch. done: what an earlier process wrote.
    """
    variants = VARIANTS[augmentation]
    shape = codec.encode(images[:1]).shape[1:]
    total = (variants * len(rows), *shape)
    jobs = batches(len(rows), batch)

    def encode(variant: int, part: range) -> torch.Tensor:
        return codec.encode(turned(images[rows[part.start : part.stop]], variant))

    with TensorWriter(path, total, done) as writer:
        for variant in range(variants):
            left = (
                part for part in progress(jobs) if variant * len(rows) + part.start >= writer.filled
            )
            for latents in in_turns(left, partial(encode, variant)):
                writer.append(latents)
    return total

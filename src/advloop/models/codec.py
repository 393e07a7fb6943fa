"""The boundary between pixels and latents: an autoencoder and the scale of its latents.

Everywhere else, images are uint8 (N, S, S, 3), and latents are float32 (N, C, H, W) in *scaled*
units: (encoded - shift) * scale. An imported autoencoder may name scale and shift in its
config.json, for all channels together or for each, since that is what its diffusion models were
trained on. Otherwise the shift is 0, and one scale gives the training set's latents a mean square
of 1 over all channels together. Whitening each channel by itself would give the channels of fine
detail the same weight as those of the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from advloop.core.device import autocast, eval_mode
from advloop.core.distributed import map_across_processes
from advloop.core.errors import UserError
from advloop.core.random import batches
from advloop.data.augmentation import augment_images
from advloop.data.latents import Scale, TensorWriter
from advloop.infra.snapshots import RowProgress
from advloop.params.data import VARIANTS

Images = npt.NDArray[np.uint8]
Progress = Callable[[Iterable[range]], Iterable[range]]


def to_pixels(images: Images, device: torch.device) -> torch.Tensor:
    """uint8 (B, S, S, 3) as float32 (B, 3, S, S) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: torch.Tensor) -> Images:
    """float (B, 3, S, S), clipped to [-1, 1], as uint8 (B, S, S, 3)."""
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _by_channel(value: Scale, device: torch.device) -> float | torch.Tensor:
    """A number for each channel as (C, 1, 1), so that it applies to latents (B, C, H, W)."""
    return torch.tensor(value, device=device)[:, None, None] if isinstance(value, tuple) else value


class Codec:
    """An autoencoder with the scale and shift of its latents: images to scaled latents and back.

    scale and shift are diffusers' scaling_factor and shift_factor or, with a number for each
    channel, scaling_factor / latents_std and latents_mean. Encoding is deterministic: it
    takes the mode of the posterior. precision: ``fp32`` or ``bf16``, of the encoder; decoding is
    always float32, because all pictures and image metrics depend on it.
    """

    def __init__(
        self, model: nn.Module, scale: Scale = 1.0, shift: Scale = 0.0, precision: str = "fp32"
    ) -> None:
        self.model, self.scale, self.shift, self.precision = model, scale, shift, precision

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, images: Images) -> torch.Tensor:
        """Images uint8 (B, S, S, 3) -> scaled latents (B, C, H, W) float32."""
        with eval_mode(self.model), autocast(self.precision, self.device):
            encoded: Any = self.model.encode(to_pixels(images, self.device))  # type: ignore[operator]  # nn.Module has no typed encode
        if hasattr(encoded, "latent_dist"):
            encoded = encoded.latent_dist.mode()
        elif not isinstance(encoded, torch.Tensor):
            encoded = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        scale, shift = (_by_channel(value, self.device) for value in (self.scale, self.shift))
        latents: torch.Tensor = (encoded.float() - shift) * scale
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Images:
        """Scaled latents (B, C, H, W) -> images uint8 (B, S, S, 3)."""
        with eval_mode(self.model):
            scale, shift = (_by_channel(value, self.device) for value in (self.scale, self.shift))
            encoded = latents.to(self.device) / scale + shift
            decoded: Any = self.model.decode(encoded)  # type: ignore[operator]  # as above
        return to_images(decoded if isinstance(decoded, torch.Tensor) else decoded.sample)

    def encode_all(self, images: Images, batch: int) -> torch.Tensor:
        """``encode`` of images (N, S, S, 3), ``batch`` at once."""
        parts = batches(len(images), batch)
        return torch.cat([self.encode(images[part.start : part.stop]) for part in parts])

    def decode_all(self, latents: torch.Tensor, batch: int) -> Images:
        """``decode`` of latents (N, C, H, W), ``batch`` at once."""
        parts = batches(len(latents), batch)
        return np.concatenate([self.decode(latents[part.start : part.stop]) for part in parts])


def latent_scale(codec: Codec, images: Images, rows: npt.NDArray[np.int64], batch: int) -> float:
    """1 / root mean square of all elements of the latents of ``rows``, as ``codec`` encodes them.

    images: (N, S, S, 3); rows: indices of images. UserError if all latents are zero.
    """
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
    """Write the scaled latents of ``rows`` to ``path``, and return their shape (N, C, H, W).

    The variants of an augmentation follow each other: row r of variant k is at index
    k * len(rows) + r. Memory is bounded by the batch. done: rows that an interrupted run of the
    stage has written.
    """
    variants = VARIANTS[augmentation]
    shape = codec.encode(images[:1]).shape[1:]
    total = (variants * len(rows), *shape)
    jobs = batches(len(rows), batch)

    def encode(variant: int, part: range) -> torch.Tensor:
        return codec.encode(augment_images(images[rows[part.start : part.stop]], variant))

    with TensorWriter(path, total, done) as writer:
        for variant in range(variants):
            written = writer.filled - variant * len(rows)  # by the interrupted run
            remaining = (part for part in progress(jobs) if part.start >= written)
            for latents in map_across_processes(partial(encode, variant), remaining):
                writer.append(latents)
    return total

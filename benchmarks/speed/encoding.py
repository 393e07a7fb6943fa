"""Encoding images: ours, one image at a time, and the bare encoder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from advloop.core.device import autocast
from advloop.core.random import batches
from advloop.models.autoencoder import build_autoencoder
from advloop.models.codec import Codec, encode_rows, to_pixels
from advloop.params.data import AutoencoderParams
from race import Contender


def contenders(
    params: AutoencoderParams,
    images: npt.NDArray[np.uint8],
    batch: int,
    precision: str,
    device: torch.device,
) -> list[Contender]:
    """Each encodes ``images`` (N, S, S, 3); the first two also write the latents to a file."""
    torch.manual_seed(0)
    codec = Codec(build_autoencoder(params).to(device).eval(), precision=precision)
    plain = Codec(codec.model)
    count = len(images)
    folder = tempfile.TemporaryDirectory()  # removed together with the contenders

    def ours() -> None:
        encode_rows(
            codec,
            images,
            np.arange(count),
            batch,
            Path(folder.name) / "ours.pt",
            lambda parts: parts,
        )

    def one_by_one() -> None:
        torch.save(
            torch.cat([plain.encode(images[k : k + 1]).cpu() for k in range(count)]),
            Path(folder.name) / "one.pt",
        )

    pixels = to_pixels(images, device)

    def bare() -> None:
        with torch.no_grad(), autocast(precision, device):
            for part in batches(count, batch):
                codec.model.encode(pixels[part.start : part.stop])  # type: ignore[operator]

    return [
        Contender("advloop", ours, count, ours=True),
        Contender("one image at a time, fp32", one_by_one, count, target=2.0),
        Contender(f"bare encoder, {precision}", bare, count),
    ]

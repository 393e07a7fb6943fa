"""Encoding images: ours, one image at a time, and the bare encoder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from advloop.autoencoder import Codec, build_autoencoder, to_pixels
from advloop.core.runtime import autocast, batches
from advloop.latents import encode_rows
from advloop.params.data import AutoencoderParams
from race import Contender


def contenders(
    params: AutoencoderParams,
    images: npt.NDArray[np.uint8],
    batch: int,
    precision: str,
    where: torch.device,
) -> list[Contender]:
    """Each encodes ``images`` (N, S, S, 3); ours and the one by one write them to a file."""
    torch.manual_seed(0)
    codec = Codec(build_autoencoder(params).to(where).eval(), precision=precision)
    plain = Codec(codec.model)
    count = len(images)
    kept = tempfile.TemporaryDirectory()  # goes with the contenders

    def ours() -> None:
        encode_rows(
            codec, images, np.arange(count), batch, Path(kept.name) / "ours.pt", lambda parts: parts
        )

    def one_by_one() -> None:
        torch.save(
            torch.cat([plain.encode(images[k : k + 1]).cpu() for k in range(count)]),
            Path(kept.name) / "one.pt",
        )

    pixels = to_pixels(images, where)

    def bare() -> None:
        with torch.no_grad(), autocast(precision, where):
            for part in batches(count, batch):
                codec.model.encode(pixels[part.start : part.stop])  # type: ignore[operator]

    return [
        Contender("advloop", ours, count, ours=True),
        Contender("one image at a time, fp32", one_by_one, count, target=2.0),
        Contender(f"bare encoder, {precision}", bare, count),
    ]

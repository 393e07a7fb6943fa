"""Sample grids as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from advloop.core.errors import UserError
from advloop.core.io import atomic_path


def image_grid(images: npt.NDArray[np.uint8], columns: int, gap: int = 2) -> npt.NDArray[np.uint8]:
    """Images (N, S, S, 3) in rows of ``columns``, ``gap`` grey pixels between them."""
    count, size = len(images), images.shape[1]
    rows = -(-count // columns)
    step = size + gap
    grid = np.full((rows * step - gap, columns * step - gap, 3), 128, dtype=np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * step, (i % columns) * step
        grid[y : y + size, x : x + size] = image
    return grid


def load_png(path: Path) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 that ``save_png`` wrote; UserError otherwise."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except Exception as error:  # a damaged picture can fail in any way
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a readable image ({reason}); remake it with `dvc repro`"
        ) from None


def save_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 without metadata, so that equal pixels are equal bytes."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)

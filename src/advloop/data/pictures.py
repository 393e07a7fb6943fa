"""Grids of images, and PNG files without metadata, so that equal pixels are equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from advloop.core.errors import UserError
from advloop.core.files import atomic_path

if TYPE_CHECKING:  # the light stages, which only handle PNGs, need no arrays
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]
# Grids of the report are small, because git keeps them.
LARGEST_TILE = 96  # pixels a side
COLOURS = 64
GREY = 128


def image_grid(images: Images, columns: int, gap: int = 2) -> Image.Image:
    """Images (N, S, S, 3) in rows of ``columns``, ``gap`` grey pixels between them."""
    import numpy as np
    import torch
    from torchvision.utils import make_grid

    missing = -len(images) % columns
    blank = np.full((missing, *images.shape[1:]), GREY, dtype=np.uint8)
    tiles = torch.from_numpy(np.concatenate([images, blank])).permute(0, 3, 1, 2)
    grid = make_grid(tiles, nrow=columns, padding=gap, pad_value=GREY)
    if len(tiles) > 1:  # a single one gets no border
        grid = grid[:, gap : grid.shape[1] - gap, gap : grid.shape[2] - gap]
    return Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy())


def save_grid(path: Path, images: Images, columns: int) -> None:
    """Write images (N, S, S, 3) as a PNG of COLOURS colours, each at most LARGEST_TILE wide."""
    import numpy as np

    factor = -(-images.shape[1] // LARGEST_TILE)
    tiles = np.stack([np.asarray(Image.fromarray(image).reduce(factor)) for image in images])
    grid = image_grid(tiles, columns)
    save_png(path, grid.quantize(COLOURS, dither=Image.Dither.NONE))


def save_png(path: Path, image: Image.Image) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def load_png(path: Path) -> Image.Image:
    """A picture that ``save_png`` wrote, as RGB; UserError otherwise."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except Exception as error:  # a damaged picture can fail in any way
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a readable image ({reason}); remake it with `dvc repro`"
        ) from None

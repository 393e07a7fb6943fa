"""A folder of what the report shows of each model, a sub-folder a model: pictures and their facts.

It grows: stage evaluate copies the one of the model before and adds its own, so that the report
reads the last one alone.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from advloop.core.errors import UserError
from advloop.core.io import atomic_path, copy_file, disk_errors, read_json, write_json
from advloop.grids import image_grid

Images = npt.NDArray[np.uint8]
SAMPLES, NEIGHBOURS, VIABILITY = "samples.png", "neighbours.png", "viability.png"
FACTS, DISCRIMINATOR, DIFFUSION = "facts.json", "discriminator.csv", "diffusion.csv"
LARGEST_TILE = 96  # pixels a side: the page is kept in git
COLOURS = 64  # of a picture, for the same reason


@dataclass(frozen=True)
class Neighbour:
    """file: the training image; distance: of the latents, over that of unseen reals."""

    file: str
    distance: float


@dataclass(frozen=True)
class Viability:
    """sigmoid(D) of the samples shown as most and as least viable, in (0, 1)."""

    most: Sequence[float]
    least: Sequence[float]


@dataclass(frozen=True)
class Facts:
    """What the pictures of one model show; viability: None where no discriminator judged it."""

    neighbours: Sequence[Neighbour]
    viability: Viability | None


def save_grid(path: Path, images: Images, columns: int) -> None:
    """Images (N, S, S, 3) as a small PNG: at most LARGEST_TILE pixels a side, in few colours."""
    factor = -(-images.shape[1] // LARGEST_TILE)
    tiles = np.stack([np.asarray(Image.fromarray(image).reduce(factor)) for image in images])
    grid = Image.fromarray(image_grid(tiles, columns))
    with atomic_path(path) as temporary:
        few = grid.quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(temporary, format="PNG", optimize=True)


def require_shown(folder: Path) -> Path:
    """The folder; UserError where it is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not found; make it with `dvc repro`")
    return folder


def copy_shown(source: Path, target: Path) -> None:
    """``target`` as the folder ``source``."""
    with disk_errors(target):
        shutil.rmtree(target, ignore_errors=True)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy_file(path, target / path.relative_to(source))


def save_facts(folder: Path, facts: Facts) -> None:
    write_json(folder / FACTS, asdict(facts))


def read_facts(folder: Path) -> Facts:
    """What ``save_facts`` wrote; UserError otherwise."""
    path = folder / FACTS
    content = read_json(path)
    try:
        neighbours = [
            Neighbour(_text(row["file"]), _number(row["distance"])) for row in content["neighbours"]
        ]
        judged = content["viability"]
        viability = None
        if judged is not None:
            viability = Viability(*([_number(v) for v in judged[k]] for k in ("most", "least")))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: not what stage evaluate writes ({error}); remake it with `dvc repro`"
        ) from None
    return Facts(neighbours, viability)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value} is no file name")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    return float(value)

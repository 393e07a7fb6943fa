"""The pictures of the report's page, each with what it shows in words."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advloop.grids import load_png
from advloop.reporting.report import NAMES
from advloop.shown import NEIGHBOURS, SAMPLES, VIABILITY, Neighbour, Viability


@dataclass(frozen=True)
class Picture:
    """data: a PNG in base64."""

    data: str
    width: int
    height: int


def picture(path: Path) -> Picture:
    height, width, _ = load_png(path).shape
    return Picture(base64.b64encode(path.read_bytes()).decode(), width, height)


def samples(shown: Path, name: str) -> dict[str, Any]:
    if name == "reals":
        title, alt = "Real test images", "A grid of real test images."
    else:
        title = NAMES.get(name, name)
        alt = f"A grid of samples of {title}, of the same noise as in the other models' grids."
    return {"name": title, "alt": alt, "picture": picture(shown / name / SAMPLES)}


def neighbours(shown: Path, name: str, found: Sequence[Neighbour]) -> dict[str, Any]:
    title = NAMES.get(name, name)
    return {
        "name": title,
        "picture": picture(shown / name / NEIGHBOURS),
        "alt": f"{len(found)} samples of {title}, each above its nearest training image; the "
        "table below names them.",
        "rows": [{"file": n.file, "distance": f"{n.distance:.3f}"} for n in found],
    }


def viability(shown: Path, name: str, found: Viability) -> dict[str, Any]:
    most, least = (
        ", ".join(f"{value:.3f}" for value in side) for side in (found.most, found.least)
    )
    return {
        "name": name,
        "picture": picture(shown / name / VIABILITY),
        "alt": f"{len(found.most)} samples of {name} that its discriminator takes most for real, "
        "above as many that it takes least for real.",
        "caption": f"Most viable, above: {most}. Least viable, below: {least}.",
    }

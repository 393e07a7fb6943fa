"""The gallery of a model, as the report reads it: names of pictures, and facts beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.core.files import read_json, write_json

STRIP, SAMPLES, NEIGHBOURS = "strip.png", "samples.png", "neighbours.png"
VIABILITY, FACTS = "viability.png", "facts.json"


@dataclass(frozen=True)
class Neighbour:
    """file: a training image; distance: from sample to image, in units of unseen reals."""

    file: str
    distance: float


@dataclass(frozen=True)
class Viability:
    """sigmoid(D) in (0, 1) of the samples that look most and least real to a discriminator."""

    most: Sequence[float]
    least: Sequence[float]


@dataclass(frozen=True)
class Facts:
    """What the pictures of a model contain. viability: None if no discriminator judged it."""

    neighbours: Sequence[Neighbour]
    viability: Viability | None


def save_facts(folder: Path, facts: Facts) -> None:
    write_json(folder / FACTS, asdict(facts))


def read_facts(folder: Path) -> Facts:
    """What ``save_facts`` wrote; UserError for any other content."""
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
        raise TypeError(f"{value} is not a file name")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)

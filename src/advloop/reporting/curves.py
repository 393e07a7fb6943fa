"""Read the CSV files of training histories, without pandas: it takes seconds to import."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from advloop.core.errors import UserError

Curve = list[tuple[float, float]]
"""The (epoch, value) pairs of one column. Epochs without a value are left out."""


def read_curves(path: Path, *needed: str) -> dict[str, Curve]:
    """All columns but ``epoch``, by name.

    UserError if a ``needed`` column is missing, or if a value is not a finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = dict.fromkeys(key for row in rows for key in row)
        if missing := {"epoch", *needed}.difference(columns):
            raise ValueError(f"no column {min(missing)}")
        return {
            str(column): [
                (_number(row["epoch"]), _number(row[column])) for row in rows if row[column]
            ]
            for column in columns
            if column != "epoch"
        }
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except (ValueError, TypeError, csv.Error, OSError) as error:
        raise UserError(
            f"{path}: not a history of epochs ({error}); remake it with `dvc repro`"
        ) from None


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value

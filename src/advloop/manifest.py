"""manifest.csv: one row (file, group, split) for every row of an array beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from advloop.errors import UserError
from advloop.io import atomic_path

COLUMNS = ("file", "group", "split")
SPLITS = ("train", "val", "tune", "test")


def write_manifest(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """CSV of COLUMNS, one row an image; names without a character that is UNPRINTABLE."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_manifest(path: Path) -> list[list[str]]:
    """Rows of (file, group, split) as ``write_manifest`` wrote them; UserError otherwise."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{path}: not a CSV file ({error}); make it with `dvc repro`") from None
    if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(f"{path}: columns must be {', '.join(COLUMNS)}; remake with `dvc repro`")
    if unknown := {row[2] for row in rows}.difference(SPLITS):
        raise UserError(
            f"{path}: split={min(unknown)} is none of {', '.join(SPLITS)}; remake with `dvc repro`"
        )
    return rows

"""manifest.csv: one row (file, group, split) for every row of an array beside it.

Where images have classes, a row ends in the name of its class.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from advloop.core.errors import UserError
from advloop.core.io import atomic_path

COLUMNS = ("file", "group", "split")
CLASS = "class"
SPLITS = ("train", "val", "tune", "test")


def write_manifest(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """CSV of COLUMNS, one row an image; names without a character that is UNPRINTABLE.

    Rows are all of that length, or all longer by the class.
    """
    rows = list(rows)
    columns = (*COLUMNS, CLASS) if rows and len(rows[0]) > len(COLUMNS) else COLUMNS
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_manifest(path: Path) -> list[list[str]]:
    """Rows of (file, group, split[, class]) as ``write_manifest`` wrote them, or UserError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; make it with `dvc repro`") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{path}: not a CSV file ({error}); make it with `dvc repro`") from None
    known = tuple(header) in (COLUMNS, (*COLUMNS, CLASS))
    if not known or any(len(row) != len(header) for row in rows):
        raise UserError(f"{path}: columns must be {', '.join(COLUMNS)}; remake with `dvc repro`")
    if unknown := {row[2] for row in rows}.difference(SPLITS):
        raise UserError(
            f"{path}: split={min(unknown)} is none of {', '.join(SPLITS)}; remake with `dvc repro`"
        )
    return rows


def classes_of(rows: Sequence[Sequence[str]]) -> list[str]:
    """The class of each row of ``read_manifest``; [] where images have none."""
    return [row[len(COLUMNS)] for row in rows if len(row) > len(COLUMNS)]

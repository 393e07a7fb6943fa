"""The prepared images: one array, and manifest.csv with one row per image in the same order.

A row is (file, group, split), followed by the name of the class if the images have classes. If they
have captions, captions.json lists these in the same order.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from advloop.core.errors import UserError, counted
from advloop.core.files import atomic_path, read_json

COLUMNS = ("file", "group", "split")
CLASS = "class"
CAPTIONS = "captions.json"
SPLITS = ("train", "val", "tune", "test")


@dataclass(frozen=True)
class Dataset:
    """images: (N, S, S, 3) uint8, memory-mapped; files, groups, splits: N entries each.

    classes, captions: of the N images, or empty. Images with captions have no classes.
    """

    images: npt.NDArray[np.uint8]
    files: list[str]
    groups: list[str]
    splits: list[str]
    classes: Sequence[str] = ()
    captions: Sequence[str] = ()

    @property
    def conditions(self) -> Sequence[str]:
        """What a model is conditioned on, by image: classes or captions; or empty."""
        return self.classes or self.captions

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Indices of the images in ``split``, in manifest order."""
        return np.flatnonzero(np.array(self.splits) == split).astype(np.int64)

    def manifest_row(self, row: int) -> tuple[str, ...]:
        """The row of manifest.csv for one image."""
        known = self.files[row], self.groups[row], self.splits[row]
        return (*known, self.classes[row]) if self.classes else known


def load_dataset(folder: Path) -> Dataset:
    """The output of stage prepare; UserError if images and manifest do not match.

    Every split holds at least one image.
    """
    rows = read_manifest(folder / "manifest.csv")
    if absent := set(SPLITS).difference(row[2] for row in rows):
        raise UserError(
            f"{folder / 'manifest.csv'}: names no image of split {min(absent)}; make it with "
            "`dvc repro`"
        )
    path = folder / "images.npy"
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header can fail in any way
        raise UserError(f"{path}: cannot be read ({error}); make it with `dvc repro`") from None
    square = images.ndim == 4 and images.shape[1:] == (images.shape[1], images.shape[1], 3)
    if not square or images.dtype != np.uint8 or len(images) != len(rows):
        raise UserError(f"{path}: does not match manifest.csv; make both with `dvc repro prepare`")
    files, groups, splits = ([row[i] for row in rows] for i in range(3))
    captions, listed = [], folder / CAPTIONS
    if listed.exists() and len(captions := read_captions(listed)) != len(rows):
        raise UserError(
            f"{listed}: {counted(len(captions), 'caption')} of {counted(len(rows), 'image')}; make "
            "both with `dvc repro prepare`"
        )
    return Dataset(images, files, groups, splits, classes_of(rows), captions)


def read_captions(path: Path) -> list[str]:
    """The captions of the images in the order of the manifest, or UserError."""
    captions = read_json(path)
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise UserError(f"{path}: not a list of captions; make it with `dvc repro prepare`")
    return captions


def write_manifest(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV of COLUMNS, one row per image; all rows name a class, or none does.

    The texts hold no UNPRINTABLE character, so that ``read_manifest`` returns them unchanged.
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
    """The class name of each row of ``read_manifest``, or [] if the images have no classes."""
    return [row[len(COLUMNS)] for row in rows if len(row) > len(COLUMNS)]


def training_files(path: Path, count: int) -> list[str]:
    """The images whose variants are the ``count`` training latents, in their order.

    path: of the manifest. UserError where the two do not match.
    """
    files = [file for file, _, split, *_ in read_manifest(path) if split == "train"]
    if not files or count % len(files):
        raise UserError(f"{path}: {len(files)} training images for {count} latents; `dvc repro`")
    return files

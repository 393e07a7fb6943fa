"""The prepared images: one array, one manifest row an image, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from advloop.core.errors import UserError
from advloop.manifest import SPLITS, classes_of, read_manifest


@dataclass(frozen=True)
class Dataset:
    """images: (N, S, S, 3) uint8, memory-mapped; files, groups, splits: N entries each.

    classes: N entries, or none where images have no class.
    """

    images: npt.NDArray[np.uint8]
    files: list[str]
    groups: list[str]
    splits: list[str]
    classes: Sequence[str] = ()

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Indices of the images in ``split``, in manifest order."""
        return np.flatnonzero(np.array(self.splits) == split).astype(np.int64)

    def manifest_row(self, row: int) -> tuple[str, ...]:
        """What manifest.csv says of an image."""
        known = self.files[row], self.groups[row], self.splits[row]
        return (*known, self.classes[row]) if self.classes else known


def load_dataset(folder: Path) -> Dataset:
    """The output of stage prepare; UserError if images and manifest do not match.

    Every split has an image, as stage prepare sees to.
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
    return Dataset(images, files, groups, splits, classes_of(rows))

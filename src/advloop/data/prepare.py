"""Turn the images of a source into one array and its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from advloop.core.errors import UNPRINTABLE, UserError
from advloop.core.files import atomic_path, write_json
from advloop.data.dataset import write_manifest
from advloop.data.images import decode_image
from advloop.data.listing import Item
from advloop.data.sources import Source
from advloop.data.splits import assign_splits
from advloop.params.data import DataParams

Progress = Callable[[Iterable[Item]], Iterable[Item]]
OnSkip = Callable[[str], None]
"""Receives one line that says why an image is left out."""


class Prepared(NamedTuple):
    """The images that were kept, and their splits."""

    items: list[Item]
    splits: list[str]


def prepare(
    source: Source,
    items: Sequence[Item],
    params: DataParams,
    folder: Path,
    progress: Progress,
    on_skip: OnSkip,
) -> Prepared:
    """Write images.npy and manifest.csv with the same rows, and skipped.json under ``skip``.

    ``on_skip`` is called for each image that is left out; only the others are split. Raises
    UserError, and then writes nothing.
    """
    splits = split_items(items, params)  # fails before the images are decoded, which takes a while
    kept = list(items)
    with atomic_path(folder / "images.npy") as temporary:
        with temporary.open("wb") as file:
            skipped = write_images(source, items, params, file, progress, on_skip)
        if skipped:
            kept = [item for item in items if item.file not in skipped]
            splits = split_items(kept, params)
        rows = []
        for item, split in zip(kept, splits, strict=True):
            names = [] if item.class_name is None else [item.class_name]
            rows.append([item.file, item.group, split, *names])
        write_manifest(folder / "manifest.csv", rows)
        if params.on_error == "skip":
            write_json(
                folder / "skipped.json",
                {"count": len(skipped), "of": len(items), "images": skipped},
            )
    return Prepared(kept, splits)


def split_items(items: Sequence[Item], params: DataParams) -> list[str]:
    """``assign_splits`` with the parameters of the run."""
    fractions = params.val_fraction, params.test_fraction, params.tune_fraction
    return assign_splits(items, *fractions, params.split_seed)


def write_images(
    source: Source,
    items: Sequence[Item],
    params: DataParams,
    file: BinaryIO,
    progress: Progress,
    on_skip: OnSkip,
) -> dict[str, str]:
    """Write the readable items as ``.npy`` (N, size, size, 3) uint8, one image in memory.

    Returns why the others were left out, by file. Raises UserError at the first bad image unless
    ``params.on_error`` is ``skip``, and if no image is left.
    """

    def write_header(count: int) -> None:  # NumPy pads it to the same length for any count
        shape = (count, params.image_size, params.image_size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)

    skipped: dict[str, str] = {}
    write_header(len(items))
    for item in progress(items):
        try:
            name = name_of(source, item)
            image = decode_image(source.read(item.file), name, params.image_size, params.resize)
        except UserError as error:
            if params.on_error == "stop":
                raise UserError(f"{error}, or set data.on_error=skip") from None
            skipped[item.file] = str(error)
            on_skip(str(error))
        else:
            file.write(image.tobytes())
    if len(skipped) == len(items):
        raise UserError(f"{source.name}: none of {len(items)} images is readable; mend some")
    write_header(len(items) - len(skipped))
    return skipped


def name_of(source: Source, item: Item) -> str:
    """What messages call an image; UserError if a manifest cannot hold its name."""
    if UNPRINTABLE.search(item.file):
        raise UserError(
            f"{source.name}: {item.file}: its name is not UTF-8 or holds a control character; "
            "rename it"
        )
    return f"{source.name}: {item.file}"

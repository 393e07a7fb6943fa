"""Turn a source's images into one array and its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from advloop.core.errors import UNPRINTABLE, UserError
from advloop.core.io import atomic_path, write_json
from advloop.manifest import write_manifest
from advloop.params.data import DataParams
from advloop.preparation.images import decode_image
from advloop.preparation.sources import Item, Source
from advloop.preparation.splits import assign_splits

Progress = Callable[[Iterable[Item]], Iterable[Item]]
OnSkip = Callable[[str], None]
"""Receives the one line that says what is wrong with an image."""


class Prepared(NamedTuple):
    """The images that were prepared, and their splits."""

    items: list[Item]
    splits: list[str]


def name_of(source: Source, item: Item) -> str:
    """What an image is called in messages; UserError where its name cannot be in a manifest."""
    if UNPRINTABLE.search(item.file):
        raise UserError(
            f"{source.name}: {item.file}: its name is not UTF-8 or holds a control character; "
            "rename it"
        )
    return f"{source.name}: {item.file}"


def write_images(
    source: Source,
    items: Sequence[Item],
    params: DataParams,
    file: BinaryIO,
    progress: Progress,
    on_skip: OnSkip,
) -> dict[str, str]:
    """Write the readable items as ``.npy`` (N, size, size, 3) uint8; one image in memory.

    Returns what is wrong with the others, by file. Raises UserError at the first bad one,
    unless ``params.on_error`` is ``skip``, and where none is left.
    """

    def write_header(count: int) -> None:  # of one length, whatever the count
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


def prepare(
    source: Source,
    items: Sequence[Item],
    params: DataParams,
    folder: Path,
    progress: Progress,
    on_skip: OnSkip,
) -> Prepared:
    """Write images.npy and manifest.csv, row by row alike, and skipped.json under ``skip``.

    ``on_skip`` is told of each image that is left out; splits are drawn from those that are
    kept. Raises UserError, and then writes nothing.
    """

    def split(chosen: Sequence[Item]) -> list[str]:
        fractions = params.val_fraction, params.test_fraction, params.tune_fraction
        return assign_splits(chosen, *fractions, params.split_seed)

    splits = split(items)  # before the images are decoded, which takes a while
    kept = list(items)
    with atomic_path(folder / "images.npy") as temporary:
        with temporary.open("wb") as file:
            skipped = write_images(source, items, params, file, progress, on_skip)
        if skipped:
            kept = [item for item in items if item.file not in skipped]
            splits = split(kept)
        rows = [
            (item.file, item.group, name, *([item.label] if item.label is not None else []))
            for item, name in zip(kept, splits, strict=True)
        ]
        write_manifest(folder / "manifest.csv", rows)
        if params.on_error == "skip":
            write_json(
                folder / "skipped.json",
                {"count": len(skipped), "of": len(items), "images": skipped},
            )
    return Prepared(kept, splits)

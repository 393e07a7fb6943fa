"""Turn the images of a source into one array and its manifest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from advloop.core.errors import UNPRINTABLE, UserError, counted
from advloop.core.files import atomic_path, write_json
from advloop.data.dataset import CAPTIONS, write_manifest
from advloop.data.findings import Look, look_at, require_differences
from advloop.data.images import (
    HEAD,
    cut_tiles,
    decode_image,
    flat_share,
    may_be_deep,
    read_pixels,
)
from advloop.data.manifests import Item
from advloop.data.sources import Source
from advloop.data.splits import assign_splits
from advloop.data.values import SIXTEEN_BITS, Seen, ValueRange, choose_range, record_of
from advloop.params.data import DataParams

Progress = Callable[[Iterable[Item]], Iterable[Item]]
OnSkip = Callable[[str], None]
"""Receives one line that says why an image is left out."""
Check = Callable[[Sequence[Item], Sequence[str]], None]
"""Receives the images, tile by tile, and their splits; UserError if they are too few."""


def accept(items: Sequence[Item], splits: Sequence[str]) -> None:
    """Take any number of images."""


class Written(NamedTuple):
    """What became of a source's images.

    items, looks: one for each row of images.npy. skipped: why an image was not read, by file. flat:
    how many images, or tiles of them, were left out because they are nearly one colour. notes: how
    many images were converted or ignored in part, by what was done. values: ``record_of`` the range
    of those of more than 8 bits, if there are any.
    """

    items: list[Item]
    looks: list[Look]
    skipped: dict[str, str]
    flat: int
    notes: Counter[str]
    values: dict[str, Any] | None = None


def prepare(
    source: Source,
    items: Sequence[Item],
    params: DataParams,
    folder: Path,
    progress: Progress,
    on_skip: OnSkip,
    check: Check = accept,
) -> tuple[Written, list[str]]:
    """Write images.npy and manifest.csv with the same rows, and skipped.json under ``skip``.

    captions.json holds the captions of these rows, if there are any.
    value_range.json says what became black and white, if an image has more than 8 bits. Every
    image becomes ``data.tiles`` ** 2 rows of its group, less those that are flatter than
    ``data.max_flat``. ``on_skip`` is called for each image that cannot be read; only what is
    written is split; the splits are returned. Raises UserError, and then writes nothing.
    """
    splits = split_items(items, params)  # fails before the images are decoded, which takes a while
    check(*tiled(items, splits, params.tiles))
    seen = see_values(source, items, progress)
    values = choose_range(seen, params.value_range, source.name)
    with atomic_path(folder / "images.npy") as temporary:
        with temporary.open("wb") as file:
            written = write_images(source, items, params, values, file, progress, on_skip)
        if values:
            written = written._replace(values=record_of(seen, values, params.value_range))
        if written.items != list(items):
            splits = split_items(written.items, params)
            check(written.items, splits)
        rows = []
        for item, split in zip(written.items, splits, strict=True):
            names = [] if item.class_name is None else [item.class_name]
            rows.append([item.file, item.group, split, *names])
        write_manifest(folder / "manifest.csv", rows)
        if params.captions:
            write_json(folder / CAPTIONS, [item.caption for item in written.items])
        if written.values:
            write_json(folder / "value_range.json", written.values)
        if params.on_error == "skip":
            write_json(
                folder / "skipped.json",
                {"count": len(written.skipped), "of": len(items), "images": written.skipped},
            )
    return written, splits


def see_values(source: Source, items: Sequence[Item], progress: Progress) -> Seen:
    """The values of all images of more than 8 bits; one that cannot be read is left out."""
    seen = Seen()
    for item in progress(items):
        with contextlib.suppress(UserError):  # write_images says which, and why
            name = name_of(source, item)
            if may_be_deep(source.read(item.file, HEAD)):  # all other files are read once
                image, wide = read_pixels(source.read(item.file), name, only_deep=True)
                seen.add(item.file, image, colour=wide)
    return seen


def split_items(items: Sequence[Item], params: DataParams) -> list[str]:
    """``assign_splits`` with the parameters of the run."""
    fractions = params.val_fraction, params.test_fraction, params.tune_fraction
    return assign_splits(items, *fractions, params.split_seed)


def write_images(
    source: Source,
    items: Sequence[Item],
    params: DataParams,
    values: ValueRange | None,
    file: BinaryIO,
    progress: Progress,
    on_skip: OnSkip,
) -> Written:
    """Write the readable items as ``.npy`` (N, size, size, 3) uint8, one image in memory.

    The items that are returned are one for each row. Raises UserError at the first bad image
    unless ``params.on_error`` is ``skip``, if no row is left, and if all rows are the same.

    values: the source's range, which None stands for if it has no image of more than 8 bits.
    """

    def write_header(count: int) -> None:  # NumPy pads it to the same length for any count
        shape = (count, params.image_size, params.image_size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)

    skipped: dict[str, str] = {}
    kept: list[Item] = []
    looks: list[Look] = []
    notes: Counter[str] = Counter()
    flat, side = 0, params.tiles * params.image_size
    write_header(len(items))
    for item in progress(items):
        try:
            name = name_of(source, item)
            content, taken = source.read(item.file), set[str]()
            image = decode_image(
                content, name, side, params.resize, values or SIXTEEN_BITS, taken.add
            )
        except UserError as error:
            if params.on_error == "stop":
                raise UserError(f"{error}, or set data.on_error=skip") from None
            skipped[item.file] = str(error)
            on_skip(str(error))
        else:
            notes.update(taken)
            tiles = zip(tiles_of(item, params.tiles), cut_tiles(image, params.tiles), strict=True)
            for part, tile in tiles:
                if params.max_flat < 1 and flat_share(tile) > params.max_flat:
                    flat += 1
                else:
                    kept.append(part)
                    looks.append(look_at(tile))
                    file.write(tile.tobytes())
    if len(skipped) == len(items):
        raise UserError(
            f"{source.name}: none of {counted(len(items), 'image')} is readable; mend some"
        )
    if not kept:
        raise UserError(
            f"{source.name}: of every image more than data.max_flat={params.max_flat:g} is one "
            "colour; raise data.max_flat"
        )
    require_differences(looks, source.name)
    write_header(len(kept))
    return Written(kept, looks, skipped, flat, notes)


def tiles_of(item: Item, tiles: int) -> list[Item]:
    """The item of each tile of an image, row by row: ``a.png#1,2`` is in row 1, column 2."""
    if tiles == 1:
        return [item]
    places = [(row, column) for row in range(1, tiles + 1) for column in range(1, tiles + 1)]
    return [replace(item, file=f"{item.file}#{row},{column}") for row, column in places]


def tiled(items: Sequence[Item], splits: Sequence[str], tiles: int) -> tuple[list[Item], list[str]]:
    """The items of all tiles, if none is left out, and the split of each."""
    pairs = [
        (part, split)
        for item, split in zip(items, splits, strict=True)
        for part in tiles_of(item, tiles)
    ]
    return [part for part, _ in pairs], [split for _, split in pairs]


def name_of(source: Source, item: Item) -> str:
    """What messages call an image; UserError if a manifest cannot hold its name."""
    if UNPRINTABLE.search(item.file):
        raise UserError(
            f"{source.name}: {item.file}: its name is not UTF-8 or holds a control character; "
            "rename it"
        )
    return f"{source.name}: {item.file}"

"""Report how a run would use a folder or an archive of images: `make check-data SOURCE=path`.

Reads section `data` of params.yaml and changes nothing.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stages"))

from _runtime.caches import in_cache

from advloop.core.errors import UserError, counted, printable
from advloop.data.dataset import SPLITS
from advloop.data.findings import Look, findings, look_at, require_differences
from advloop.data.images import FORMATS, make_square, open_image
from advloop.data.listing import (
    MOST_NAMES,
    describe_captions,
    describe_groups,
    describe_unused,
    list_items,
    some_names,
)
from advloop.data.manifests import Item, find_manifest
from advloop.data.prepare import Check, accept, name_of, see_values, split_items, tiled
from advloop.data.sizes import check_sizes
from advloop.data.sources import Source, open_source
from advloop.data.splits import class_lines
from advloop.data.values import SIXTEEN_BITS, ValueRange, choose_range, describe_range, record_of
from advloop.infra.output import print_safely
from advloop.params.data import DataParams
from advloop.params.loader import Params


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", help="default: data.source of params.yaml")
    parser.add_argument("--seconds", default="1", help="for opening images; default 1")
    args = parser.parse_args()
    try:
        loaded = Params.load()
        params = loaded.section("data", DataParams)
        params = params.model_copy(update={"source": args.source or params.source})
        key = "SOURCE" if args.source else "data.source"
        source = open_source(Path(params.source), in_cache, key)
        seconds, check = read_seconds(args.seconds), partial(check_sizes, loaded)
        for line in check_source(source, params, seconds, check):
            print(line, flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


def read_seconds(text: str) -> float:
    """A number of seconds, at least 0, or UserError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(
            f"SECONDS={text}: no number of seconds from 0 on; use one, as in SECONDS=60"
        )
    return seconds


@dataclass
class Opened:
    """Findings in the images that were opened, by file."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # width, height; upright
    kinds: Counter[str] = field(default_factory=Counter)  # formats, and grey or transparent
    looks: dict[str, Look] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    bad: dict[str, str] = field(default_factory=dict)  # why it cannot be used, in one line


def check_source(
    source: Source, params: DataParams, seconds: float, check: Check = accept
) -> Iterator[str]:
    """Lines that say which images are used, how they are split, and what is left out and why.

    seconds: for opening images; those that are not opened count as good. Raises UserError if the
    run would stop.
    """
    items = list_items(source, params.classes, params.captions)
    yield from _describe_files(source, items)
    looked: list[Item] = []

    def first_half(items: Iterable[Item]) -> Iterator[Item]:
        end = time.monotonic() + seconds / 2
        for item in items:
            looked.append(item)
            yield item
            if time.monotonic() > end:
                return

    order = [items[index] for index in np.random.default_rng(0).permutation(len(items))]
    seen = see_values(source, order, first_half)
    complete = len(looked) == len(items)
    values = None
    try:
        values = choose_range(seen, params.value_range, source.name)
    except UserError as error:
        if complete:
            raise
        yield f"judging by {counted(len(looked), 'image')} looked at: {error}"
    opened = open_images(source, looked, params, values or SIXTEEN_BITS, seconds / 2)
    count = len(opened.sizes) + len(opened.bad)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(opened.kinds.items()))
    yield f"opened: {count} of {len(items)}" + (f" ({kinds})" if kinds else "")
    if count < len(items):
        yield f"  not opened within {seconds:g} s: {len(items) - count}; more seconds open more"
    if values:
        of_those = "" if complete else " (of those looked at)"
        yield describe_range(record_of(seen, values, params.value_range)) + of_those
    yield from (f"images {note}: {number}" for note, number in sorted(opened.notes.items()))
    yield from _describe_sizes(opened, params)
    for problem in list(opened.bad.values())[:MOST_NAMES]:
        yield f"{'skipped' if params.on_error == 'skip' else 'stops the run'}: {problem}"
    if len(opened.bad) > MOST_NAMES:
        yield f"  and {len(opened.bad) - MOST_NAMES} more that cannot be used"
    kept = [item for item in items if item.file not in opened.bad]
    if not kept:
        raise UserError(
            f"{source.name}: none of {counted(len(items), 'image')} is readable; mend some"
        )
    splits = split_items(kept, params)
    yield _describe_splits(kept, splits)
    yield from map(printable, class_lines(kept, splits))
    check(*tiled(kept, splits, params.tiles))
    pairs = [(i, split) for i, split in zip(kept, splits, strict=True) if i.file in opened.looks]
    looks = [opened.looks[item.file] for item, _ in pairs]
    if len(looks) == len(kept):
        require_differences(looks, source.name)
    if params.max_flat < 1:  # which leaves out images of one colour
        pairs = [pair for pair in pairs if opened.looks[pair[0].file].span]
        looks = [opened.looks[item.file] for item, _ in pairs]
    found = findings(looks, [item for item, _ in pairs], [split for _, split in pairs])
    yield from (f"warning: {line}" for line in found)
    if opened.bad and params.on_error == "stop":
        raise UserError(
            f"{source.name}: {counted(len(opened.bad), 'image')} cannot be used; mend or remove, "
            "or set data.on_error=skip"
        )


def open_images(
    source: Source, items: Sequence[Item], params: DataParams, values: ValueRange, seconds: float
) -> Opened:
    """Decode images until the seconds are over."""
    opened, end = Opened(), time.monotonic() + seconds
    side = params.tiles * params.image_size
    for item in items:
        try:
            name, notes = name_of(source, item), set[str]()
            content = source.read(item.file)
            image = open_image(content, name, values, notes.add)
        except UserError as error:
            opened.bad[item.file] = str(error)
        else:
            opened.sizes[item.file] = image.size
            opened.looks[item.file] = look_at(make_square(image, side, params.resize))
            opened.notes.update(notes)
            with Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values()))) as raw:
                clear = raw.mode.endswith(("A", "a")) or "transparency" in raw.info
                grey = raw.mode in ("1", "L", "LA", "La", "F") or raw.mode.startswith("I")
                opened.kinds.update([raw.format or "", *["grey"] * grey, *["transparent"] * clear])
        if time.monotonic() > end:
            break
    return opened


def _describe_files(source: Source, items: Sequence[Item]) -> Iterator[str]:
    """Images and groups, folders that the split may divide, and files that are not used."""
    manifest = find_manifest(source)
    groups = len({item.group for item in items})
    by = f"as {manifest} says" if manifest else "by sub-folder"
    what = f"{counted(len(items), 'image')} in {counted(groups, 'group')}"
    yield f"{printable(source.name)}: {what}, {by}"
    yield from (f"  {line}" for line in describe_groups(source, items))
    if not manifest:
        yield from _describe_folders(items, below_class=items[0].class_name is not None)
    yield from describe_captions(items)
    yield from describe_unused(source, items)


def _describe_folders(items: Sequence[Item], *, below_class: bool) -> Iterator[str]:
    """Folders of several groups, which different splits may share."""
    inside: dict[str, set[str]] = {}
    for item in items:
        parts = PurePosixPath(item.file).parts[:-1]
        if len(parts) > below_class + 1:
            inside.setdefault("/".join(parts[: below_class + 1]), set()).add(item.group)
    divided = sorted(folder for folder, groups in inside.items() if len(groups) > 1)
    if divided:
        yield (
            "  each folder that holds images is a group: several are in "
            f"{counted(len(divided), 'folder')}, and may end up in different splits; a "
            f"manifest.csv joins them: {some_names(divided)}"
        )


def _describe_sizes(opened: Opened, params: DataParams) -> Iterator[str]:
    """The smallest and largest image, and which ones ``data.resize`` changes much."""
    if not opened.sizes:
        return
    size = params.tiles * params.image_size
    by_area = sorted(opened.sizes.values(), key=lambda side: side[0] * side[1])
    (w, h), (width, height) = by_area[0], by_area[-1]
    largest = "" if (w, h) == (width, height) else f" to {width}×{height}"
    cut = f", then {params.tiles}×{params.tiles} tiles" if params.tiles > 1 else ""
    yield f"{w}×{h}{largest} pixels; to {size}×{size} by data.resize={params.resize}{cut}"
    long = {file: max(s) / min(s) for file, s in opened.sizes.items() if max(s) > 2 * min(s)}
    if long:
        worst = max(long, key=lambda file: long[file])
        loss = {
            "crop": "more than half of the area is lost (data.resize=pad keeps it)",
            "pad": "more than half becomes white (data.resize=crop fills the square)",
            "stretch": "stretched to more than twice the width or height",
        }
        yield f"  {loss[params.resize]}: {counted(len(long), 'image')}, {printable(worst)} most"
    side = max if params.resize == "pad" else min  # the side that has to reach the size
    small = [file for file, s in sorted(opened.sizes.items()) if side(s) < size]
    if small:
        yield (
            f"  too small for {size} pixels and enlarged: {counted(len(small), 'image')}: "
            f"{some_names(small)}"
        )


def _describe_splits(items: Sequence[Item], splits: Sequence[str]) -> str:
    """Images and groups of each split."""
    counts = Counter(splits)
    groups = {
        name: len({i.group for i, s in zip(items, splits, strict=True) if s == name})
        for name in SPLITS
    }
    parts = (f"{name} {counts[name]} of {counted(groups[name], 'group')}" for name in SPLITS)
    return f"used: {counted(len(items), 'image')}: {', '.join(parts)}"


if __name__ == "__main__":
    main()

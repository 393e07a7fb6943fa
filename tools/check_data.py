"""Report how a run would use a folder or an archive of images: `make check-data SOURCE=path`.

Reads section `data` of params.yaml and changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.errors import UserError, counted, printable
from advloop.data.dataset import SPLITS
from advloop.data.images import FORMATS, open_image
from advloop.data.listing import Item, find_manifest, list_items
from advloop.data.prepare import name_of, split_items
from advloop.data.sources import Source, open_source
from advloop.data.splits import class_lines
from advloop.infra.output import print_safely
from advloop.params.data import DataParams
from advloop.params.loader import Params

MOST_NAMES = 5  # in one line


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", help="default: data.source of params.yaml")
    parser.add_argument("--seconds", type=float, default=1.0, help="for opening images; default 1")
    args = parser.parse_args()
    try:
        params = Params.load().section("data", DataParams)
        params = params.model_copy(update={"source": args.source or params.source})
        for line in check_source(open_source(Path(params.source)), params, args.seconds):
            print(line, flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


@dataclass
class Opened:
    """Findings in the images that were opened, by file."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # width, height; upright
    kinds: Counter[str] = field(default_factory=Counter)  # formats, and grey or transparent
    digests: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)  # why it cannot be used, in one line


def check_source(source: Source, params: DataParams, seconds: float) -> Iterator[str]:
    """Lines that say which images are used, how they are split, and what is left out and why.

    seconds: for opening images; those that are not opened count as good. Raises UserError if the
    run would stop.
    """
    items = list_items(source, params.classes)
    yield from _describe_files(source, items, params)
    opened = open_images(source, items, seconds)
    count = len(opened.sizes) + len(opened.bad)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(opened.kinds.items()))
    yield f"opened: {count} of {len(items)}" + (f" ({kinds})" if kinds else "")
    if count < len(items):
        yield f"  not opened within {seconds:g} s: {len(items) - count}; more seconds open more"
    yield from _describe_sizes(opened, params)
    for problem in list(opened.bad.values())[:MOST_NAMES]:
        yield f"{'skipped' if params.on_error == 'skip' else 'stops the run'}: {problem}"
    if len(opened.bad) > MOST_NAMES:
        yield f"  and {len(opened.bad) - MOST_NAMES} more that cannot be used"
    kept = [item for item in items if item.file not in opened.bad]
    if not kept:
        raise UserError(f"{source.name}: none of {len(items)} images is readable; mend some")
    splits = split_items(kept, params)
    yield from _describe_splits(kept, splits, opened)
    yield from map(printable, class_lines(kept, splits))
    if opened.bad and params.on_error == "stop":
        raise UserError(
            f"{source.name}: {len(opened.bad)} images cannot be used; mend or remove them, or set "
            "data.on_error=skip"
        )


def open_images(source: Source, items: Sequence[Item], seconds: float) -> Opened:
    """Decode images in random order until the seconds are over."""
    opened, end = Opened(), time.monotonic() + seconds
    for index in np.random.default_rng(0).permutation(len(items)):
        item = items[index]
        try:
            name = name_of(source, item)
            content = source.read(item.file)
            image = open_image(content, name)
        except UserError as error:
            opened.bad[item.file] = str(error)
        else:
            opened.sizes[item.file] = image.size
            opened.digests[item.file] = hashlib.sha256(content).hexdigest()
            with Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values()))) as raw:
                clear = raw.mode.endswith(("A", "a")) or "transparency" in raw.info
                grey = raw.mode in ("1", "L", "LA", "La", "F") or raw.mode.startswith("I")
                opened.kinds.update([raw.format or "", *["grey"] * grey, *["transparent"] * clear])
        if time.monotonic() > end:
            break
    return opened


def _describe_files(source: Source, items: Sequence[Item], params: DataParams) -> Iterator[str]:
    """Images and groups, folders that the split may divide, and files that are not used."""
    files = source.files()
    manifest = find_manifest(files)
    groups = len({item.group for item in items})
    by = f"as {manifest} says" if manifest else "by sub-folder"
    what = f"{counted(len(items), 'image')} in {counted(groups, 'group')}"
    yield f"{printable(source.name)}: {what}, {by}"
    if not manifest:
        yield from _describe_folders(items, below_class=params.classes == "folders")
    if other := sorted({*files} - {item.file for item in items} - {manifest}):
        images = sum(PurePosixPath(file).suffix.lower() in FORMATS for file in other)
        why = f"no image of {', '.join(FORMATS)}"
        why = f"{images} of them images that {manifest} does not name" if images else why
        yield f"not used: {counted(len(other), 'file')} ({why}): {_names(other)}"


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
            f"  each folder that holds images is a group: {len(divided)} folders hold several, "
            f"which may end up in different splits; a manifest.csv joins them: {_names(divided)}"
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
            "crop": "lose more than half of their area (data.resize=pad keeps it)",
            "pad": "become more than half white (data.resize=crop fills the square)",
            "stretch": "are stretched to more than twice their width or height",
        }
        yield f"  {len(long)} {loss[params.resize]}: {printable(worst)} most"
    side = max if params.resize == "pad" else min  # the side that has to reach the size
    small = [file for file, s in sorted(opened.sizes.items()) if side(s) < size]
    if small:
        yield f"  {len(small)} are too small for {size} pixels and enlarged: {_names(small)}"


def _describe_splits(items: Sequence[Item], splits: Sequence[str], opened: Opened) -> Iterator[str]:
    """Images and groups of each split, and copies of an image that are in two of them."""
    counts = Counter(splits)
    groups = {
        name: len({i.group for i, s in zip(items, splits, strict=True) if s == name})
        for name in SPLITS
    }
    parts = (f"{name} {counts[name]} of {counted(groups[name], 'group')}" for name in SPLITS)
    yield f"used: {counted(len(items), 'image')}: {', '.join(parts)}"
    first: dict[str, tuple[str, str]] = {}
    leaks = []
    for item, split in zip(items, splits, strict=True):
        if digest := opened.digests.get(item.file):
            file, before = first.setdefault(digest, (item.file, split))
            if before != split:
                leaks.append(f"{item.file} ({split}) = {file} ({before})")
    if leaks:
        yield (
            f"warning: {len(leaks)} images are copies of one in another split, so that evaluation "
            f"sees training images; put them in one group: {_names(leaks)}"
        )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(printable, names[:MOST_NAMES])) + more


if __name__ == "__main__":
    main()

"""What a run would make of a source of images, without running it."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from advloop.core.errors import UserError, printable
from advloop.manifest import SPLITS
from advloop.params.data import DataParams
from advloop.preparation.images import FORMATS, open_image
from advloop.preparation.prepare import name_of
from advloop.preparation.sources import Item, Source, list_items
from advloop.preparation.splits import assign_splits, class_lines

SHOWN = 5  # names of one kind


@dataclass
class Seen:
    """What was found in the images that were opened, by file."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # width, height, upright
    kinds: Counter[str] = field(default_factory=Counter)
    digests: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)  # what is wrong, in one line


def look(source: Source, items: Sequence[Item], seconds: float) -> Seen:
    """Decode images, in an order spread over the source, until the seconds are over."""
    seen, end = Seen(), time.monotonic() + seconds
    for index in np.random.default_rng(0).permutation(len(items)):
        item = items[index]
        try:
            name = name_of(source, item)
            content = source.read(item.file)
            image = open_image(content, name)
        except UserError as error:
            seen.bad[item.file] = str(error)
        else:
            seen.sizes[item.file] = image.size
            seen.digests[item.file] = hashlib.sha256(content).hexdigest()
            with Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values()))) as raw:
                clear = raw.mode.endswith(("A", "a")) or "transparency" in raw.info
                grey = raw.mode in ("1", "L", "LA", "La", "F") or raw.mode.startswith("I")
                seen.kinds.update([raw.format or "", *["grey"] * grey, *["transparent"] * clear])
        if time.monotonic() > end:
            break
    return seen


def check_source(source: Source, params: DataParams, seconds: float) -> Iterator[str]:
    """Lines that say what is used, how it is split, what is left out, and why.

    Images are opened until the ``seconds`` are over; the others count as good. Raises UserError
    where the run would stop.
    """
    items = list_items(source, params.classes)
    files = source.files()
    list_file = next((f for f in ("manifest.csv", "index.json") if f in files), None)
    other = sorted({*files} - {item.file for item in items} - {list_file})
    groups = len({item.group for item in items})
    by = f"as {list_file} says" if list_file else "by sub-folder"
    yield f"{printable(source.name)}: {len(items)} images in {groups} groups, {by}"
    if not list_file:
        yield from _parted(items, below_class=params.classes == "folders")
    if other:
        images = sum(PurePosixPath(file).suffix.lower() in FORMATS for file in other)
        why = f"no image of {', '.join(FORMATS)}"
        why = f"{images} of them images that {list_file} does not name" if images else why
        yield f"not used: {len(other)} files ({why}): {_some(other)}"
    seen = look(source, items, seconds)
    opened = len(seen.sizes) + len(seen.bad)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.kinds.items()))
    yield f"opened: {opened} of {len(items)}" + (f" ({kinds})" if kinds else "")
    if opened < len(items):
        yield f"  not opened within {seconds:g} s: {len(items) - opened}; more seconds open more"
    yield from _shapes(seen, params)
    for problem in list(seen.bad.values())[:SHOWN]:
        yield f"{'skipped' if params.on_error == 'skip' else 'stops the run'}: {problem}"
    if len(seen.bad) > SHOWN:
        yield f"  and {len(seen.bad) - SHOWN} more that cannot be used"
    kept = [item for item in items if item.file not in seen.bad]
    if not kept:
        raise UserError(f"{source.name}: none of {len(items)} images is readable; mend some")
    fractions = params.val_fraction, params.test_fraction, params.tune_fraction
    splits = assign_splits(kept, *fractions, params.split_seed)
    yield from _split_lines(kept, splits, seen)
    yield from map(printable, class_lines(kept, splits))
    if seen.bad and params.on_error == "stop":
        raise UserError(
            f"{source.name}: {len(seen.bad)} images cannot be used; mend or remove them, or set "
            "data.on_error=skip"
        )


def _parted(items: Sequence[Item], *, below_class: bool) -> Iterator[str]:
    """Folders whose own sub-folders are groups, so that several splits may share them."""
    inside: dict[str, set[str]] = {}
    for item in items:
        parts = PurePosixPath(item.file).parts[:-1]
        if len(parts) > below_class + 1:
            inside.setdefault("/".join(parts[: below_class + 1]), set()).add(item.group)
    parted = sorted(folder for folder, groups in inside.items() if len(groups) > 1)
    if parted:
        yield (
            f"  each folder that holds images is a group: {len(parted)} folders hold several, "
            f"which may stand in different splits; a manifest.csv joins them: {_some(parted)}"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more


def _shapes(seen: Seen, params: DataParams) -> Iterator[str]:
    """Sizes, and which images ``data.resize`` changes much."""
    if not seen.sizes:
        return
    size = params.image_size
    by_area = sorted(seen.sizes.values(), key=lambda side: side[0] * side[1])
    (w, h), (width, height) = by_area[0], by_area[-1]
    largest = "" if (w, h) == (width, height) else f" to {width}×{height}"
    yield f"{w}×{h}{largest} pixels; to {size}×{size} by data.resize={params.resize}"
    long = {file: max(s) / min(s) for file, s in seen.sizes.items() if max(s) > 2 * min(s)}
    if long:
        worst = max(long, key=lambda file: long[file])
        loss = {
            "crop": "lose more than half of their area (data.resize=pad keeps it)",
            "pad": "become more than half white (data.resize=crop fills the square)",
            "stretch": "are bent to more than twice their width or height",
        }
        yield f"  {len(long)} {loss[params.resize]}: {printable(worst)} most"
    side = max if params.resize == "pad" else min  # which one has to reach the size
    small = [file for file, s in sorted(seen.sizes.items()) if side(s) < size]
    if small:
        yield f"  {len(small)} are too small for {size} pixels and enlarged: {_some(small)}"


def _split_lines(items: Sequence[Item], splits: Sequence[str], seen: Seen) -> Iterator[str]:
    counts = Counter(splits)
    groups = {
        name: len({i.group for i, s in zip(items, splits, strict=True) if s == name})
        for name in SPLITS
    }
    parts = (f"{name} {counts[name]} of {groups[name]} groups" for name in SPLITS)
    yield f"used: {len(items)} images: {', '.join(parts)}"
    first: dict[str, tuple[str, str]] = {}
    leaks = []
    for item, split in zip(items, splits, strict=True):
        if digest := seen.digests.get(item.file):
            file, before = first.setdefault(digest, (item.file, split))
            if before != split:
                leaks.append(f"{item.file} ({split}) = {file} ({before})")
    if leaks:
        yield (
            f"warning: {len(leaks)} copies of one image stand in two splits, so that evaluation "
            f"sees training images; put them in one group: {_some(leaks)}"
        )

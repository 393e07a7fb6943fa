"""What prepared images have in common that a training cannot mend: copies, one colour, few levels.

Only a source that is one image over and over is an error; the rest may be meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from advloop.core.errors import UserError
from advloop.data.images import RGB
from advloop.data.listing import some_names
from advloop.data.manifests import Item

THUMBNAIL = 16  # pixels a side
ALIKE = 3.0  # levels of 255, root mean square of two thumbnails
FEW_LEVELS = 32  # of 256
MOST_COMPARED = 2000  # each with each


class Look(NamedTuple):
    """What is kept of an image (S, S, 3).

    span: levels between the darkest and the brightest pixel, of the channel with most of them; 0
    is one colour. digest: of all pixels. thumbnail: bytes of (THUMBNAIL, THUMBNAIL, 3).
    """

    span: int
    digest: bytes
    thumbnail: bytes


def look_at(image: RGB) -> Look:
    channels = np.ascontiguousarray(image.reshape(-1, 3).T)  # ten times as fast as by rows
    small = Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    digest = hashlib.sha256(image.tobytes()).digest()
    return Look(int(np.ptp(channels, axis=1).max()), digest, small.tobytes())


def require_differences(looks: Sequence[Look], source: str) -> None:
    """UserError if all images are the same."""
    if len(looks) > 1 and len({look.digest for look in looks}) == 1:
        raise UserError(
            f"{source}: all {len(looks)} prepared images are the same, so that there is nothing to "
            "learn; replace them"
        )


def findings(looks: Sequence[Look], items: Sequence[Item], splits: Sequence[str]) -> list[str]:
    """Warnings about images, in one line each; looks, items and splits are of the same images."""
    leaks, repeated = _copies(looks, items, splits)
    flat = [item.file for look, item in zip(looks, items, strict=True) if not look.span]
    varied = [(look.span, i.file) for look, i in zip(looks, items, strict=True) if look.span]
    dull = [file for span, file in varied if span < FEW_LEVELS]
    found = {
        "that are copies of one in another split": (
            leaks,
            "evaluation sees training images, so put them into one group",
        ),
        "that are copies of one in their split": (repeated, "keep one of each"),
        "that look like one in another split": (
            _alike(looks, items, splits),
            "put what shows the same into one group",
        ),
        "of one colour": (flat, "data.max_flat=0.999 leaves them out"),
        f"that use fewer than {FEW_LEVELS} of 256 levels": (
            dull if 2 * len(dull) > len(varied) else [],
            "scale their values up, or those of more than 8 bits by data.value_range",
        ),
    }
    return [
        f"images {kind}: {len(names)} ({some_names(names)}); {remedy}"
        for kind, (names, remedy) in found.items()
        if names
    ]


def _copies(
    looks: Sequence[Look], items: Sequence[Item], splits: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Images of the same pixels as an earlier one: of another split, and of their own."""
    first: dict[bytes, tuple[str, str]] = {}
    leaks, repeated = [], []
    for look, item, split in zip(looks, items, splits, strict=True):
        file, before = first.setdefault(look.digest, (item.file, split))
        if before != split:
            leaks.append(f"{item.file} ({split}) = {file} ({before})")
        elif file != item.file:
            repeated.append(f"{item.file} = {file}")
    return leaks, repeated


def _alike(looks: Sequence[Look], items: Sequence[Item], splits: Sequence[str]) -> list[str]:
    """Images that look like an earlier one of another split, but are no copies or of one colour.

    Of more than MOST_COMPARED images, as many are compared.
    """
    rows = [row for row, look in enumerate(looks) if look.span]
    if len(rows) > MOST_COMPARED:
        chosen = np.random.default_rng(0).choice(rows, MOST_COMPARED, replace=False)
        rows = sorted(map(int, chosen))
    if not rows:
        return []
    thumbnails = np.frombuffer(b"".join(looks[row].thumbnail for row in rows), np.uint8)
    points = thumbnails.reshape(len(rows), -1).astype(np.float32)
    points -= points.mean(axis=0)  # the smaller the squares, the smaller their rounding
    squares = np.square(points).sum(axis=1)
    apart = squares[:, None] + squares - 2 * points @ points.T
    near = np.triu(apart < ALIKE**2 * points.shape[1])
    for kinds in ([splits[row] for row in rows], [looks[row].digest.hex() for row in rows]):
        names = np.array(kinds)
        near &= names[:, None] != names
    found = zip(
        np.flatnonzero(near.any(axis=0)), near.argmax(axis=0)[near.any(axis=0)], strict=True
    )
    pairs = [(rows[late], rows[early]) for late, early in found]
    return [f"{items[b].file} ({splits[b]}) ~ {items[a].file} ({splits[a]})" for b, a in pairs]

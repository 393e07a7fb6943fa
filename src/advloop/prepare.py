"""Turn a source's images into one array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from advloop.images import decode_image
from advloop.io import atomic_path, reserve
from advloop.sources import Item, Source


def write_images(
    source: Source,
    items: Sequence[Item],
    size: int,
    path: Path,
    progress: Callable[[Iterable[Item]], Iterable[Item]],
) -> None:
    """Decode every item into one (N, size, size, 3) uint8 ``.npy``, one image in memory."""
    with atomic_path(path) as temporary:
        shape = (len(items), size, size, 3)
        rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        reserve(temporary, temporary.stat().st_size)
        for row, item in zip(rows, progress(items), strict=True):
            row[:] = decode_image(source.read(item.file), f"{source.name}: {item.file}", size)
        rows.flush()

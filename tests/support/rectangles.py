"""Small images with a layout: rectangles of one colour on a ground of another."""

from __future__ import annotations

import numpy as np


def rectangles(seed: int, count: int = 24) -> np.ndarray:
    """(count, 32, 32, 3) uint8."""
    stream = np.random.default_rng(seed)
    images = np.empty((count, 32, 32, 3), dtype=np.uint8)
    for image in images:
        image[:] = stream.integers(256, size=3)
        top, left = stream.integers(16, size=2)
        image[top : top + 12, left : left + 12] = stream.integers(256, size=3)
    return images

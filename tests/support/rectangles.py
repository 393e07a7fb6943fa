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


PALETTE = np.array([[180, 60, 60], [60, 140, 60], [60, 60, 180], [200, 180, 60]])


def rooms(seed: int, count: int = 24) -> np.ndarray:
    """Two rooms of a palette's colours with dark walls, on white; (count, 32, 32, 3) uint8."""
    stream = np.random.default_rng(seed)
    images = np.full((count, 32, 32, 3), 240, dtype=np.uint8)
    for image in images:
        for left in (1, 17):
            top, height, width = stream.integers(1, 16), stream.integers(8, 15), 14
            image[top : top + height, left : left + width] = 30
            colour = PALETTE[stream.integers(4)]
            image[top + 1 : top + height - 1, left + 1 : left + width - 1] = colour
    return images

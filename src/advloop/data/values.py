"""The values of images of more than 8 bits, and the range of them that becomes black to white.

A source has one such range, so that equal values are equally bright in all of its images. It is
stated in ``data.value_range`` or follows from all of these images together. Images of 8 bits are
taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from advloop.core.errors import UserError, counted

WHITES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)  # of usual sensors and files
LEAST_UPPER_BYTE = 2**6  # of 16-bit colour that leaves 64 levels or fewer
STATE = "state data.value_range=[black, white]"


class ValueRange(NamedTuple):
    """The values that become 0 and 255; those outside of them are clipped."""

    black: float
    white: float


SIXTEEN_BITS = ValueRange(0, 2**16 - 1)


@dataclass
class Seen:
    """Values of a source's images of more than 8 bits, by file: the smallest and the greatest.

    colours: of 16-bit colour, the greatest upper byte, which is all that Pillow reads of it.
    broken: images that hold NaN or infinity.
    """

    integers: dict[str, tuple[float, float]] = field(default_factory=dict)
    floats: dict[str, tuple[float, float]] = field(default_factory=dict)
    colours: dict[str, int] = field(default_factory=dict)
    broken: int = 0

    def add(self, file: str, image: Image.Image, *, colour: bool) -> None:
        """Look at an image; colour: its file has 16 bits a channel."""
        if colour and image.mode != "CMYK":  # little ink is no sign of few bits
            bands = zip(image.getbands(), image.split(), strict=True)
            tops = [np.asarray(band).max() for name, band in bands if name not in "Aa"]
            self.colours[file] = int(max(tops))
        elif has_values(image):
            values = np.asarray(image)
            low, high = float(values.min()), float(values.max())
            if not math.isfinite(low + high):
                self.broken += 1
            elif image.mode == "F":
                self.floats[file] = low, high
            else:
                self.integers[file] = low, high

    @property
    def extremes(self) -> dict[str, tuple[float, float]]:
        """Of integers and floats, sorted by file."""
        return dict(sorted({**self.integers, **self.floats}.items()))


def has_values(image: Image.Image) -> bool:
    """Whether an image's values need a range: Pillow's modes I, I;16 and F."""
    return image.mode == "F" or image.mode.startswith("I")


def choose_range(seen: Seen, stated: Sequence[float] | None, source: str) -> ValueRange | None:
    """The range of a source, or None if it has no image of more than 8 bits.

    Black is 0. White is the greatest value of all: of integers, that of the fewest bits out of 8,
    10, 12, 14 and 16 which hold it; of floats, at least 1. UserError that names ``source`` and an
    image where no range makes sense.
    """
    extremes = seen.extremes
    if stated is not None:
        return _check_stated(seen, ValueRange(*stated), source)
    _check_colours(seen, source)
    if not extremes:
        return None
    if seen.integers and seen.floats:
        raise UserError(
            f"{source}: {min(seen.floats)} holds floats and {min(seen.integers)} integers of more "
            f"than 8 bits, which share no range; convert one kind, or {STATE}"
        )
    lowest = min(extremes, key=lambda file: extremes[file][0])
    highest = max(extremes, key=lambda file: extremes[file][1])
    low, high = extremes[lowest][0], extremes[highest][1]
    if low < 0:
        raise UserError(
            f"{source}: {lowest} holds {low:.6g}, and a range from 0 needs values that are not "
            f"negative; {STATE}"
        )
    if low == high:
        raise UserError(
            f"{source}: all values of {counted(len(extremes), 'image')} of more than 8 bits are "
            f"{low:.6g} ({lowest}), which is no range; replace them, or {STATE}"
        )
    whites = [1] if seen.floats else WHITES
    return ValueRange(0, next((white for white in whites if white >= high), high))


def _check_colours(seen: Seen, source: str) -> None:
    if seen.colours and (top := max(seen.colours.values())) < LEAST_UPPER_BYTE:
        raise UserError(
            f"{source}: {min(seen.colours)} has 16-bit colour of values below {(top + 1) * 256:,}, "
            "of which Pillow reads the upper 8 bits alone; convert it to 8 bits, from black to "
            "white"
        )


def _check_stated(seen: Seen, stated: ValueRange, source: str) -> ValueRange | None:
    """The range of data.value_range; UserError where it cannot be applied."""
    name = f"data.value_range=[{stated.black:.6g}, {stated.white:.6g}]"
    extremes = seen.extremes
    if seen.colours and stated != SIXTEEN_BITS:
        raise UserError(
            f"{source}: {min(seen.colours)} has 16-bit colour, of which Pillow reads the upper 8 "
            f"bits alone, so that {name} cannot be applied; convert it to 8 bits"
        )
    if not extremes:
        if seen.broken or seen.colours:  # each of the broken ones is refused when it is decoded
            return None
        raise UserError(
            f"{source}: {name}, but no image has more than 8 bits; set data.value_range=null"
        )
    low = min(values[0] for values in extremes.values())
    high = max(values[1] for values in extremes.values())
    if high <= stated.black or low >= stated.white:
        raise UserError(
            f"{source}: {name}, but all values are in [{low:.6g}, {high:.6g}] "
            f"({min(extremes)}); correct it, or set data.value_range=null"
        )
    return stated


def record_of(seen: Seen, chosen: ValueRange, stated: Sequence[float] | None) -> dict[str, Any]:
    """What is written down of a range: its ends, what they follow from, and what is clipped."""
    low, high = zip(*seen.extremes.values(), strict=True)
    clipped = [a < chosen.black or b > chosen.white for a, b in seen.extremes.values()]
    return {
        "black": chosen.black,
        "white": chosen.white,
        "stated": stated is not None,
        "images": len(clipped),
        "seen": [min(low), max(high)],
        "clipped": sum(clipped),
    }


def describe_range(record: dict[str, Any]) -> str:
    """One line of ``record_of``."""
    (low, high), clipped = record["seen"], record["clipped"]
    line = (
        f"images of more than 8 bits: {record['images']}, of values from {low:.6g} to {high:.6g}; "
        f"{record['black']:.6g} becomes black, {record['white']:.6g} white"
        + (f"; images of which values are clipped: {clipped}" * (clipped > 0))
    )
    return line if record["stated"] else f"{line}; data.value_range states another range"


def to_grey(image: Image.Image, chosen: ValueRange) -> Image.Image:
    """An image that ``has_values`` as mode L; ValueError for NaN and infinity."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    scaled = (values - chosen.black) * (255 / (chosen.white - chosen.black))
    levels: npt.NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:  # one value, over white
        levels[values == transparent] = 255
    return Image.fromarray(levels)

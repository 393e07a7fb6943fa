"""Decode untrusted image files into square RGB arrays."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from advloop.core.errors import UserError
from advloop.data.metadata import (
    DAMAGED,
    IGNORED,
    NUMBERED,
    PNG,
    Note,
    names_other_colours,
    upright,
    without_metadata,
)
from advloop.data.profiles import to_srgb
from advloop.data.values import SIXTEEN_BITS, ValueRange, has_values, to_grey

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEAD = 25  # bytes, up to the bit depth of a PNG
MAX_PIXELS = 89_478_485  # Pillow's own limit; a 20,000×20,000 bomb is four times this
RGB = npt.NDArray[np.uint8]


def ignore(_: str) -> None:
    """Take no notes."""


def decode_image(
    content: bytes,
    name: str,
    size: int,
    resize: str = "crop",
    values: ValueRange = SIXTEEN_BITS,
    note: Note = ignore,
) -> RGB:
    """``open_image`` as a square (size, size, 3) uint8, with its errors."""
    return make_square(open_image(content, name, values, note), size, resize)


def make_square(image: Image.Image, size: int, resize: str) -> RGB:
    """An RGB image as a square (size, size, 3) uint8.

    resize: crop keeps the middle square, pad centres the whole image on white, stretch changes
    the proportions. Shrinking averages areas, so that flat colours stay flat and thin lines fade
    evenly.
    """
    if resize == "crop":
        square = ImageOps.fit(image, (size, size), method=_method(min(image.size), size))
    elif resize == "pad":
        longest = max(image.size)
        width, height = (max(1, round(side * size / longest)) for side in image.size)
        square = Image.new("RGB", (size, size), "white")
        small = image.resize((width, height), _method(longest, size))
        square.paste(small, ((size - width) // 2, (size - height) // 2))
    else:  # one axis may shrink while the other grows
        narrow = image.resize((size, image.height), _method(image.width, size))
        square = narrow.resize((size, size), _method(image.height, size))
    return np.asarray(square, dtype=np.uint8)


def _method(side: int, size: int) -> Image.Resampling:
    return Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC


def cut_tiles(image: RGB, tiles: int) -> list[RGB]:
    """A square (tiles * S, tiles * S, 3) as tiles (S, S, 3), row by row."""
    rows = (column for row in np.split(image, tiles) for column in np.split(row, tiles, axis=1))
    return [np.ascontiguousarray(tile) for tile in rows]


def flat_share(image: RGB) -> float:
    """The share of pixels, in (0, 1], that have the most frequent colour of image (S, S, 3)."""
    red, green, blue = np.moveaxis(image.astype(np.uint32), 2, 0)
    _, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    return float(counts.max() / counts.sum())


class Pixels(NamedTuple):
    """An image file as Pillow reads it, upright.

    wide: it has 16 bits a channel of colour, of which Pillow keeps the upper 8.
    """

    image: Image.Image
    wide: bool


def open_image(
    content: bytes, name: str, values: ValueRange = SIXTEEN_BITS, note: Note = ignore
) -> Image.Image:
    """An image file as RGB (sRGB), upright. Raises UserError that starts with ``name``.

    values: become black to white in images of more than 8 bits.
    """
    pixels = read_pixels(content, name, note)
    try:
        return _as_rgb(pixels.image, values, note)
    except DAMAGED as error:
        raise _unreadable(name, error) from None


def may_be_deep(head: bytes) -> bool:
    """Whether a file may have more than 8 bits a channel. head: its first HEAD bytes."""
    return head.startswith(TIFFS) or (head.startswith(PNG) and head[24:] == b"\x10")


def read_pixels(
    content: bytes, name: str, note: Note = ignore, *, only_deep: bool = False
) -> Pixels:
    """An image file in its own mode. Raises UserError that starts with ``name``.

    only_deep: leave the pixels of an image of 8 bits unread, which is much faster.
    """
    try:
        return _load(content, name, note, only_deep)
    except DAMAGED as error:
        for rest in without_metadata(content):
            with contextlib.suppress(*DAMAGED):
                pixels = _load(rest, name, note, only_deep)
                note(IGNORED)
                return pixels
        raise _unreadable(name, error, content) from None


def _load(content: bytes, name: str, note: Note, only_deep: bool) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{name}: {image.width}×{image.height} pixels exceed the limit of "
                        f"{MAX_PIXELS:,}; scale it down or remove it"
                    )
                wide = ";16" in str(image.tile[:1]) and not has_values(image)  # in the file
                if only_deep and not wide and not has_values(image):
                    return Pixels(image, wide)
                image.load()
                if names_other_colours(content) and not image.info.get("icc_profile"):
                    note(NUMBERED)
                return Pixels(upright(image, note), wide)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{name}: too many pixels; scale it down or remove it") from None


def _unreadable(name: str, error: Exception, content: bytes = b"") -> UserError:
    if isinstance(error, UnidentifiedImageError):  # its own text only shows an object's address
        kinds = ", ".join(dict.fromkeys(FORMATS.values()))
        if content.startswith(TIFFS):
            reason = "a TIFF of a layout that Pillow does not know, as floats of several channels"
        else:
            reason = f"none of {kinds}"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{name}: not a readable image ({reason}); replace or remove it")


def _as_rgb(image: Image.Image, values: ValueRange, note: Note) -> Image.Image:
    """Any mode as RGB: transparency over white, values in their range, colours in sRGB."""
    profile = image.info.get("icc_profile")
    if has_values(image):
        image = to_grey(image, values)
    clear = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if clear and profile else None
    if profile:
        kind = {"1": "L", "LA": "L", "La": "L"}.get(image.mode, image.mode)
        opaque = image.convert(kind if kind in ("L", "CMYK") else "RGB")
        image = to_srgb(opaque, profile, note)
        if alpha:
            image.putalpha(alpha)
    if clear:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

"""Decode untrusted image files into square RGB arrays."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from advloop.core.errors import UserError

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
MAX_PIXELS = 89_478_485  # Pillow's own limit; a 20,000×20,000 bomb is four times this
# All that Pillow is known to raise for damaged files.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, struct.error)
RGB = npt.NDArray[np.uint8]


def decode_image(content: bytes, name: str, size: int, resize: str = "crop") -> RGB:
    """An image file as a square (size, size, 3) uint8, upright.

    resize: crop keeps the middle square, pad centres the whole image on white, stretch changes
    the proportions. Shrinking averages areas, so that flat colours stay flat and thin lines fade
    evenly. Raises UserError that starts with ``name``.
    """
    upright = open_image(content, name)
    if resize == "crop":
        square = ImageOps.fit(upright, (size, size), method=_method(min(upright.size), size))
    elif resize == "pad":
        longest = max(upright.size)
        width, height = (max(1, round(side * size / longest)) for side in upright.size)
        square = Image.new("RGB", (size, size), "white")
        small = upright.resize((width, height), _method(longest, size))
        square.paste(small, ((size - width) // 2, (size - height) // 2))
    else:  # one axis may shrink while the other grows
        narrow = upright.resize((size, upright.height), _method(upright.width, size))
        square = narrow.resize((size, size), _method(upright.height, size))
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


def open_image(content: bytes, name: str) -> Image.Image:
    """An image file as RGB, upright. Raises UserError that starts with ``name``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{name}: {image.width}×{image.height} pixels exceed the limit of "
                        f"{MAX_PIXELS:,}; scale it down or remove it"
                    )
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{name}: too many pixels; scale it down or remove it") from None
    except UnidentifiedImageError:  # its own text only shows an object's address
        kinds = ", ".join(dict.fromkeys(FORMATS.values()))
        raise UserError(
            f"{name}: not a readable image (none of {kinds}); replace or remove it"
        ) from None
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name}: not a readable image ({reason}); replace or remove it") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB, with transparency over white and 16-bit grey scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image, dtype=np.float64)
        sixteen = image.mode.startswith("I;16") or pixels.max(initial=0) > 255
        top = 65535.0 if sixteen else 255.0
        image = Image.fromarray((pixels * (255 / top)).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

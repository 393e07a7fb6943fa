"""What stands beside the pixels of an image file and must not keep them from being read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from PIL import ExifTags, Image, ImageOps

Note = Callable[[str], None]
"""Receives what was done to an image or assumed about it, in words that fit many images."""

# All that Pillow is known to raise for damaged files.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, struct.error)
PNG = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
TRANSPARENCY = b"tRNS"
IGNORED = "metadata that cannot be read, ignored"
CICP, SRGB = b"cICP", b"\x01\x0d"  # numbers of primaries and of transfer (ITU-T H.273)
NUMBERED = "with colours named by numbers (cICP) alone, taken as sRGB"
UNNAMED_ADOBE = "AdobeRGB as EXIF says, without a profile, taken as sRGB"


def without_metadata(content: bytes) -> Iterator[bytes]:
    """The same pixels in a PNG without its texts, then without all that is not needed for them.

    Pillow refuses a whole image for a text or a colour profile that is damaged or unpacks to more
    than 1 MiB. Yields nothing for other formats, and no file that is the same as the one before.
    """
    if not content.startswith(PNG):
        return
    chunks = list(_chunks(content))
    for keep in (
        lambda kind: kind not in TEXTS,
        lambda kind: kind[:1].isupper() or kind == TRANSPARENCY,
    ):
        kept = PNG + b"".join(chunk for kind, chunk in chunks if keep(kind))
        if len(kept) < len(content):
            content = kept
            yield content


def names_other_colours(content: bytes) -> bool:
    """Whether a PNG says by numbers that its colours are not those of sRGB."""
    if not content.startswith(PNG):
        return False
    for kind, chunk in _chunks(content):
        if kind == b"IDAT":
            break
        if kind == CICP:
            return chunk[8:10] != SRGB
    return False


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and the bytes of each chunk of a PNG; the last one may be cut off."""
    start = len(PNG)
    while start + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        yield kind, content[start:end]
        start = end


def upright(image: Image.Image, note: Note) -> Image.Image:
    """A loaded image, turned as its EXIF says; as it is if that cannot be read."""
    try:
        turned = ImageOps.exif_transpose(image)
        exif = image.getexif()
        adobe = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03"
    except DAMAGED:
        note(IGNORED)
        return image
    if adobe and not image.info.get("icc_profile"):
        note(UNNAMED_ADOBE)
    return turned

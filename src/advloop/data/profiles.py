"""Colour profiles (ICC): pixels become those that sRGB needs for the same colours."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from advloop.data.metadata import Note

CONVERTED = "converted to sRGB from their colour profile"
UNUSABLE = "with a colour profile that cannot be used, taken as sRGB"
# Profiles of sRGB round differently. A conversion that moves no colour further changes nothing.
SAME = 3  # levels of 255
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of a profile, and Pillow's mode for it


def to_srgb(image: Image.Image, profile: bytes, note: Note) -> Image.Image:
    """An image of mode L, RGB or CMYK as RGB, with its colours in sRGB.

    Where the profile is one of sRGB, damaged, or of another kind of colours, RGB is what Pillow
    makes of it without a profile.
    """
    try:
        mode, transform = _transform(profile)
        if mode == "RGB":
            image = image.convert("RGB")
        if image.mode != mode:
            raise ValueError(f"a profile of {mode} does not fit {image.mode}")
    except (ImageCms.PyCMSError, OSError, ValueError):
        note(UNUSABLE)
        return image.convert("RGB")
    if transform is None:
        return image.convert("RGB")
    note(CONVERTED)
    return transform.apply(image)


@lru_cache(maxsize=32)  # a source's images share a few
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile is for, and its way to sRGB; None if it is a profile of sRGB."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = SPACES.get(own.profile.xcolor_space.strip())
    if mode is None:
        raise ValueError(f"colours of {own.profile.xcolor_space}")
    transform = ImageCms.ImageCmsTransform(
        own,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    probe = _probe(mode)
    moved = np.asarray(transform.apply(probe), np.int16) - np.asarray(
        probe.convert("RGB"), np.int16
    )
    return mode, None if np.abs(moved).max() <= SAME else transform


def _probe(mode: str) -> Image.Image:
    """An image of colours from all over the mode's cube."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    levels = np.linspace(0, 255, 256 if bands == 1 else 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(*[levels] * bands), axis=-1).reshape(1, -1, bands)
    return Image.frombytes(mode, (colours.shape[1], 1), colours.tobytes())

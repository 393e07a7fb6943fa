"""Colours and metadata: pixels become sRGB, and what stands beside them keeps nobody from them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from bad_files import encoded
from colour_profiles import (
    ADOBE,
    DISPLAY_P3,
    cmyk_profile,
    deep_png,
    grey_profile,
    png,
    rgb_profile,
)
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from refusal import refusal

from advloop.data.images import decode_image, open_image
from advloop.data.metadata import IGNORED, NUMBERED, UNNAMED_ADOBE
from advloop.data.profiles import CONVERTED, UNUSABLE

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = (200, 100, 50)
IN_ADOBE, IN_P3 = (227, 100, 42), (216, 93, 24)  # as sRGB
P3 = rgb_profile(DISPLAY_P3)


def opened(content):
    """The first pixel, and what was noted."""
    notes = []
    image = open_image(content, "x", note=notes.append)
    assert image.mode == "RGB"
    return image.getpixel((0, 0)), notes


def flat(mode, colour):
    return Image.new(mode, (8, 8), colour)


RGB = flat("RGB", COLOUR)


@pytest.mark.parametrize(
    ("image", "kind", "profile", "expected"),
    [
        (RGB, "PNG", rgb_profile(ADOBE), IN_ADOBE),
        (RGB, "PNG", P3, IN_P3),
        (RGB, "JPEG", rgb_profile(ADOBE), IN_ADOBE),
        (RGB, "TIFF", P3, IN_P3),
        (RGB, "WEBP", P3, IN_P3),
        (RGB.quantize(4), "PNG", P3, IN_P3),
        (flat("RGBA", (*COLOUR, 255)), "PNG", P3, IN_P3),
        (flat("RGBA", (*COLOUR, 0)), "PNG", P3, (255, 255, 255)),
        (flat("L", 100), "PNG", P3, (100, 100, 100)),
        (flat("L", 100), "PNG", grey_profile(1.0), (168, 168, 168)),
        (flat("LA", (100, 255)), "PNG", grey_profile(1.0), (168, 168, 168)),
        (flat("1", 1), "TIFF", grey_profile(1.0), (255, 255, 255)),
        (flat("I;16", 25700), "PNG", grey_profile(1.0), (168, 168, 168)),
        (flat("CMYK", (9, 20, 30, 0)), "TIFF", cmyk_profile(), (119, 119, 119)),
        (flat("CMYK", (9, 20, 30, 255)), "JPEG", cmyk_profile(), (0, 0, 0)),
    ],
)
def test_colours_of_a_profile_become_those_of_srgb(image, kind, profile, expected):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    pixel, notes = opened(encoded(image, kind, icc_profile=profile, **options))
    np.testing.assert_allclose(pixel, expected, atol=2)
    assert notes == [CONVERTED]


def test_profile_of_srgb_changes_no_byte():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    for image in (Image.fromarray(noise), Image.fromarray(noise[..., 0])):
        plain, tagged = (encoded(image, icc_profile=profile) for profile in (None, SRGB))
        assert plain != tagged
        np.testing.assert_array_equal(decode_image(plain, "x", 32), decode_image(tagged, "x", 32))
        assert opened(tagged)[1] == []


@pytest.mark.parametrize(
    ("image", "profile"),
    [
        (RGB, b"?"),
        (RGB, b"?" * 500),
        (RGB, P3[:200]),
        (RGB, grey_profile(1.0)),
        (RGB, cmyk_profile()),
        (flat("RGBA", (*COLOUR, 255)), b"?"),
    ],
    ids=["short", "long", "cut off", "grey", "CMYK", "beside transparency"],
)
def test_profile_that_cannot_be_used_is_no_reason_to_refuse_pixels(image, profile):
    assert opened(encoded(image, icc_profile=profile)) == (COLOUR, [UNUSABLE])


def test_adobe_rgb_that_exif_alone_names_is_noted():
    tags = Image.Exif()
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    assert opened(encoded(RGB, "JPEG", quality=100, exif=tags))[1] == [UNNAMED_ADOBE]
    content = encoded(RGB, "JPEG", quality=100, exif=tags, icc_profile=rgb_profile(ADOBE))
    assert opened(content)[1] == [CONVERTED]


@pytest.mark.parametrize(
    ("numbers", "noted"),
    [
        (b"\x09\x10\0\1", [NUMBERED]),  # BT.2020, PQ
        (b"\x0c\x0d\0\1", [NUMBERED]),  # Display P3
        (b"\x01\x0d\0\1", []),  # sRGB
        (b"", [NUMBERED]),
    ],
)
def test_colours_that_a_png_names_by_numbers_alone_are_noted(numbers, noted):
    assert opened(with_chunk("cICP", numbers)) == (COLOUR, noted)


# --- Metadata that Pillow refuses ---


def with_chunk(kind, body, **options):
    """A PNG with one more chunk in front of its pixels."""
    content = encoded(RGB, **options)
    start = content.index(b"IDAT") - 4
    return content[:start] + png((kind, body))[8:] + content[start:]


def with_text(**options):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "y" * 2_000_000, zip=True)
    return encoded(RGB, pnginfo=info, **options)


def with_many_texts():
    info = PngImagePlugin.PngInfo()
    for _ in range(70):
        info.add_text("Comment", "y" * 1_000_000, zip=True)
    return encoded(RGB, pnginfo=info)


def behind_pixels():
    """As ImageMagick writes texts: behind the pixels."""
    content, chunk = encoded(RGB), with_text()
    text = chunk[chunk.index(b"zTXt") - 4 : chunk.index(b"IDAT") - 4]
    return content[:-12] + text + content[-12:]


def of_wrong_checksum():
    content = bytearray(with_chunk("tEXt", b"a\0b"))
    content[content.index(b"tEXt") + 7] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        with_text(),
        with_many_texts(),
        behind_pixels(),
        of_wrong_checksum(),
        with_chunk("zTXt", b"a\0\5?"),
        with_chunk("iCCP", b"a\0\5?"),
        encoded(RGB, icc_profile=bytes(2_000_000)),
        with_chunk("pHYs", b""),
    ],
    ids=["zTXt", "70 MB", "behind", "checksum", "method", "iCCP method", "2 MB iCCP", "pHYs"],
)
def test_metadata_that_pillow_refuses_is_no_reason_to_refuse_pixels(content):
    with pytest.raises((ValueError, SyntaxError, OSError)):
        Image.open(io.BytesIO(content)).load()
    assert opened(content) == (COLOUR, [IGNORED])


def test_text_that_is_refused_takes_neither_profile_nor_transparency_along():
    assert opened(with_text(icc_profile=P3)) == (IN_P3, [IGNORED, CONVERTED])
    assert opened(with_text(transparency=COLOUR)) == ((255, 255, 255), [IGNORED])


def test_damage_beside_refused_metadata_is_still_damage():
    content = with_text()
    end = content.index(b"IDAT") + 10
    assert "not a readable image" in refusal(open_image, content[:end], "x")


def test_tiff_that_pillow_does_not_know_is_called_one():
    content = encoded(flat("F", 1.0), "TIFF")
    tag = struct.pack("<HHI", 339, 3, 1)  # the format of a value: 3 is a float, 9 is none
    message = refusal(open_image, content.replace(tag + b"\3", tag + b"\t"), "x")
    assert message.startswith("x: not a readable image (a TIFF of a layout that Pillow does not")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_keeps_its_upper_bits(channels):
    values = np.full((8, 8, channels), 0x64FF)
    values[..., 3:] = 65535
    if channels == 2:
        values[..., 1] = 65535
    assert opened(deep_png(values))[0] == (0x64,) * 3

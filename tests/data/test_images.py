"""Image files come from strangers: every mode decodes, every damage is one line."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from bad_files import bilevel_png, encoded
from PIL import Image
from refusal import refusal

from advloop.core.errors import UserError
from advloop.data.images import MAX_PIXELS, decode_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def flat(mode, colour, size=(8, 8)):
    return Image.new(mode, size, colour)


def noise(height, width):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def halves(width=8, height=8):
    """Red on the left, blue on the right."""
    image = flat("RGB", RED, (width, height))
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def palette():
    """A blue image whose left half has a palette entry of its own."""
    image = flat("P", 1)
    image.putpalette([*RED, *BLUE])
    image.paste(0, (0, 0, 4, 8))
    return image


def colours(pixels):
    return {tuple(map(int, pixel)) for pixel in pixels.reshape(-1, 3)}


# --- Modes ---


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_rgb_image_of_the_wanted_size_comes_back_unchanged(kind):
    image = flat("RGB", RED)
    image.putpixel((1, 2), BLUE)
    pixels = decode_image(encoded(image, kind), "x", 8)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(image))


MODES = [
    ("PNG", "L", 77, (77, 77, 77)),
    ("PNG", "1", 1, WHITE),
    ("PNG", "LA", (50, 255), (50, 50, 50)),
    ("PNG", "LA", (50, 0), WHITE),
    ("PNG", "RGBA", (*RED, 255), RED),
    ("PNG", "RGBA", (*RED, 0), WHITE),
    ("PNG", "RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ("PNG", "I;16", 65535, WHITE),
    ("PNG", "I;16", 32896, (128, 128, 128)),
    ("PNG", "I;16", 250, (1, 1, 1)),  # nearly black stays so
    ("TIFF", "LAB", (128, 128, 128), (119, 119, 119)),
    ("JPEG", "RGB", (200, 100, 50), (200, 100, 50)),
    ("WEBP", "RGB", (200, 100, 50), (200, 100, 50)),
    ("JPEG", "CMYK", (0, 255, 255, 0), RED),
]


@pytest.mark.parametrize(("kind", "mode", "colour", "expected"), MODES)
def test_mode_is_converted_to_rgb_over_white(kind, mode, colour, expected):
    content = encoded(flat(mode, colour), kind, quality=95)
    atol = 0 if kind == "PNG" else 12  # the others are lossy
    pixels = decode_image(content, "x", 8).astype(int)
    np.testing.assert_allclose(pixels, np.full((8, 8, 3), expected), rtol=0, atol=atol)


TURNED = Image.Exif()
TURNED[0x112] = 3  # by half a turn
FRAMES = {"save_all": True, "append_images": [flat("RGB", BLUE)]}
DISPLAYED = {
    "palette": (encoded(palette()), RED, BLUE),
    "transparent entry": (encoded(palette(), transparency=0), WHITE, BLUE),
    "EXIF rotation": (encoded(halves(), exif=TURNED), BLUE, RED),
    "first of GIF": (encoded(flat("RGB", RED), "GIF", **FRAMES), RED, RED),
    "first of TIFF": (encoded(flat("RGB", RED), "TIFF", **FRAMES), RED, RED),
    "first of WEBP": (encoded(flat("RGB", RED), "WEBP", lossless=True, **FRAMES), RED, RED),
}


@pytest.mark.parametrize(("content", "left", "right"), DISPLAYED.values(), ids=DISPLAYED)
def test_image_is_what_a_viewer_displays(content, left, right):
    pixels = decode_image(content, "x", 8)
    assert (colours(pixels[:, :4]), colours(pixels[:, 4:])) == ({left}, {right})


# --- Damage ---

DAMAGED = {
    "empty": b"",
    "text": b"this is no image",
    "signature": b"\x89PNG\r\n\x1a\n",
    "PNG": encoded(noise(40, 40))[:600],
    "JPEG": encoded(noise(40, 40), "JPEG")[:400],
    "end of JPEG": encoded(noise(40, 40), "JPEG")[:-200],
    "TIFF": encoded(noise(40, 40), "TIFF")[:300],
    "GIF": encoded(noise(40, 40), "GIF")[:40],
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_or_foreign_file_is_refused_in_one_line(content):
    message = refusal(decode_image, content, "folder: a/b.png", 8)
    assert message.startswith("folder: a/b.png: not a readable image")


def test_damaged_exif_ends_in_pixels_or_in_one_line():
    entries = [(0x112, 3, 1, b"\x06\0\0\0"), (0xA005, 2, 1, b"ab\0\0")]  # text for a number
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    body += b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + b"\0" * 4
    plain, tags = encoded(flat("RGB", RED), "JPEG"), b"Exif\0\0" + body
    content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + plain[2:]
    with contextlib.suppress(UserError):
        assert decode_image(content, "x", 8).shape == (8, 8, 3)


def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    for side in (10_000, 20_000, 100_000):
        assert "pixels" in refusal(decode_image, bilevel_png(side + 1, side), "x", 8)
    fits = bilevel_png(MAX_PIXELS // 10_000 - 1, 10_000)
    assert "not a readable image" in refusal(decode_image, fits, "x", 8)
    content = encoded(flat("RGB", RED, (6, 7)))
    monkeypatch.setattr("advloop.data.images.MAX_PIXELS", 6 * 7)
    assert decode_image(content, "x", 8).shape == (8, 8, 3)
    monkeypatch.setattr("advloop.data.images.MAX_PIXELS", 6 * 7 - 1)
    assert "6×7 pixels exceed the limit of 41" in refusal(decode_image, content, "x", 8)


# --- Squares ---

SHAPES = [(8, 8), (24, 8), (8, 24), (3, 2), (300, 1), (1, 300), (1, 1), (7, 90), (100, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [8, 13])
def test_every_policy_makes_a_square_and_keeps_a_flat_colour_flat(shape, resize, size):
    pixels = decode_image(encoded(flat("RGB", (12, 200, 77), shape)), "x", size, resize)
    assert pixels.shape == (size, size, 3)
    white = set() if resize != "pad" or shape[0] == shape[1] else {WHITE}
    assert colours(pixels) == {(12, 200, 77)} | white


def test_shrinking_averages_areas_and_cropping_keeps_the_middle():
    lines, wide = flat("L", 0, (16, 16)), flat("RGB", RED, (24, 8))
    for x in range(0, 16, 2):
        lines.paste(255, (x, 0, x + 1, 16))
    assert colours(decode_image(encoded(lines), "x", 8)) == {(128, 128, 128)}
    wide.paste(GREEN, (8, 0, 16, 8))
    assert colours(decode_image(encoded(wide), "x", 8)) == {GREEN}


@pytest.mark.parametrize("scale", [1, 4])
def test_padding_keeps_all_of_a_wide_image_in_the_middle_of_white(scale):
    pixels = decode_image(encoded(halves(8 * scale, 4 * scale)), "x", 8, "pad")
    assert colours(pixels[:2]) == colours(pixels[6:]) == {WHITE}
    assert colours(pixels[2:6, :4]) == {RED}
    assert colours(pixels[2:6, 4:]) == {BLUE}


@pytest.mark.parametrize(("width", "height"), [(32, 4), (4, 32), (16, 16), (64, 8)])
def test_stretching_fills_the_square_with_all_of_the_image(width, height):
    pixels = decode_image(encoded(halves(width, height)), "x", 8, "stretch").astype(int)
    np.testing.assert_allclose(pixels[:, :3], np.broadcast_to(RED, (8, 3, 3)), atol=20)
    np.testing.assert_allclose(pixels[:, 5:], np.broadcast_to(BLUE, (8, 3, 3)), atol=20)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
@pytest.mark.parametrize("side", [5, 8, 21])
def test_square_image_is_the_same_under_every_policy(side, resize):
    content = encoded(noise(side, side))
    pixels, cropped = (decode_image(content, "x", 8, policy) for policy in (resize, "crop"))
    np.testing.assert_allclose(pixels.astype(int), cropped, rtol=0, atol=1)

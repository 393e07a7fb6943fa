"""Image files come from strangers: every mode decodes, every damage is one line."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from advloop.core.errors import UserError
from advloop.preparation.images import MAX_PIXELS, decode_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
Array = npt.NDArray[Any]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode: str, colour: Any, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def colours(pixels: Array) -> set[tuple[int, ...]]:
    return {tuple(map(int, pixel)) for pixel in pixels.reshape(-1, 3)}


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        decode_image(content, "folder: a/b.png", 8)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("folder: a/b.png: ")
    return message


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A 1-bit PNG that claims a size and carries no pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_rgb_image_of_the_wanted_size_comes_back_unchanged(kind: str) -> None:
    image = flat("RGB", RED)
    image.putpixel((1, 2), BLUE)
    pixels = decode_image(encoded(image, kind), "x", 8)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_image_comes_back_about_as_it_was(kind: str) -> None:
    pixels = decode_image(encoded(flat("RGB", (200, 100, 50)), kind, quality=95), "x", 8)
    np.testing.assert_allclose(pixels.astype(int), np.full((8, 8, 3), (200, 100, 50)), atol=6)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (flat("L", 77), (77, 77, 77)),
        (flat("1", 1), (255, 255, 255)),
        (flat("RGB", (1, 2, 3)).quantize(4), (1, 2, 3)),
        (flat("LA", (50, 255)), (50, 50, 50)),
        (flat("LA", (50, 0)), (255, 255, 255)),
        (flat("RGBA", (*RED, 255)), RED),
        (flat("RGBA", (*RED, 0)), (255, 255, 255)),
        (flat("RGBA", (0, 0, 0, 51)), (204, 204, 204)),
        (flat("I;16", 65535), (255, 255, 255)),
        (flat("I;16", 32896), (128, 128, 128)),
        (flat("I;16", 0), (0, 0, 0)),
    ],
    ids=[
        "grey",
        "bilevel",
        "palette",
        "LA",
        "LA-clear",
        "RGBA",
        "RGBA-clear",
        "RGBA-faint",
        "16bit",
        "16bit-half",
        "black",
    ],
)
def test_mode_is_converted_to_rgb_over_white(image: Image.Image, expected: tuple[int, ...]) -> None:
    assert colours(decode_image(encoded(image), "x", 8)) == {expected}


def test_nearly_black_16_bit_image_stays_nearly_black() -> None:
    assert decode_image(encoded(flat("I;16", 250)), "x", 8).max() <= 1


def test_palette_entry_that_is_transparent_becomes_white() -> None:
    image = flat("P", 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 8))
    pixels = decode_image(encoded(image, transparency=0), "x", 8)
    assert colours(pixels[:, :4]) == {(255, 255, 255)}
    assert colours(pixels[:, 4:]) == {BLUE}


def test_cmyk_jpeg_is_converted_to_rgb() -> None:
    pixels = decode_image(encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), "x", 8)
    np.testing.assert_allclose(pixels.astype(int), np.full((8, 8, 3), RED), atol=12)


def test_exif_rotation_is_applied() -> None:
    image = flat("RGB", RED)
    image.paste(GREEN, (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x112] = 6  # shown after a quarter turn clockwise: the upper half stands at the right
    pixels = decode_image(encoded(image, exif=exif), "x", 8)
    assert colours(pixels[:, :4]) == {RED}
    assert colours(pixels[:, 4:]) == {GREEN}


def test_damaged_exif_ends_in_pixels_or_in_one_line() -> None:
    entries = [(0x112, 3, 1, b"\x06\0\0\0"), (0xA005, 2, 1, b"ab\0\0")]  # text for a number
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    body += b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + b"\0" * 4
    plain, exif = encoded(flat("RGB", RED), "JPEG"), b"Exif\0\0" + body
    content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    with contextlib.suppress(UserError):
        assert decode_image(content, "x", 8).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [flat("RGB", RED), flat("RGB", BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert colours(decode_image(content, "x", 8)) == {RED}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no image",
        b"\x89PNG\r\n\x1a\n",
        encoded(noise(40, 40))[:600],
        encoded(noise(40, 40), "JPEG")[:400],
        encoded(noise(40, 40), "JPEG")[:-200],
        encoded(noise(40, 40), "TIFF")[:300],
        encoded(noise(40, 40), "GIF")[:40],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ],
    ids=[
        "empty",
        "text",
        "signature",
        "png",
        "jpeg-early",
        "jpeg-late",
        "tiff",
        "gif",
        "postscript",
    ],
)
def test_damaged_or_foreign_file_is_refused_in_one_line(content: bytes) -> None:
    assert "not a readable image" in refusal(content)


@pytest.mark.parametrize("side", [10_000, 20_000, 100_000])
def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(side: int) -> None:
    content = png_header(side + 1, side)
    assert len(content) < 100
    assert "pixels" in refusal(content)


def test_limit_of_pixels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advloop.preparation.images.MAX_PIXELS", 6 * 7 - 1)
    message = refusal(encoded(flat("RGB", RED, (6, 7))))
    assert "6×7 pixels exceed the limit of 41" in message
    monkeypatch.setattr("advloop.preparation.images.MAX_PIXELS", 6 * 7)
    assert decode_image(encoded(flat("RGB", RED, (6, 7))), "x", 8).shape == (8, 8, 3)


def test_image_just_below_the_limit_is_not_called_too_large() -> None:
    content = png_header(MAX_PIXELS // 10_000 - 1, 10_000)
    assert "not a readable image" in refusal(content)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (8, 8), (7, 9), (9, 31), (100, 64)])
@pytest.mark.parametrize("size", [8, 13])
def test_result_has_exactly_the_wanted_size(shape: tuple[int, int], size: int) -> None:
    assert decode_image(encoded(noise(*shape)), "x", size).shape == (size, size, 3)


def test_one_pixel_fills_the_square() -> None:
    assert colours(decode_image(encoded(flat("RGB", GREEN, (1, 1))), "x", 8)) == {GREEN}


@pytest.mark.parametrize("shape", [(16, 16), (33, 21), (100, 13), (9, 8)])
def test_flat_colour_stays_flat_when_it_shrinks(shape: tuple[int, int]) -> None:
    content = encoded(flat("RGB", (12, 200, 77), shape))
    assert colours(decode_image(content, "x", 8)) == {(12, 200, 77)}


def test_shrinking_averages_areas() -> None:
    image = flat("L", 0, (16, 16))
    for x in range(0, 16, 2):
        image.paste(255, (x, 0, x + 1, 16))  # one line in two
    assert colours(decode_image(encoded(image), "x", 8)) == {(128, 128, 128)}


def test_longer_side_is_cropped_at_both_ends() -> None:
    image = flat("RGB", RED, (24, 8))
    image.paste(GREEN, (8, 0, 16, 8))
    assert colours(decode_image(encoded(image), "x", 8)) == {GREEN}


# --- The policies beside cropping ---

SHAPES = [(8, 8), (24, 8), (8, 24), (3, 2), (300, 1), (1, 300), (1, 1), (7, 90)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_every_policy_makes_a_square_of_any_shape(shape: tuple[int, int], resize: str) -> None:
    content = encoded(flat("RGB", GREEN, shape))
    pixels = decode_image(content, "x", 8, resize)
    assert pixels.shape == (8, 8, 3)
    assert GREEN in colours(pixels)
    assert colours(pixels) <= {GREEN, (255, 255, 255)}
    assert (colours(pixels) == {GREEN}) == (resize != "pad" or shape[0] == shape[1])


def halves(width: int, height: int) -> bytes:
    """Red on the left, blue on the right."""
    image = flat("RGB", RED, (width, height))
    image.paste(BLUE, (width // 2, 0, width, height))
    return encoded(image)


@pytest.mark.parametrize("scale", [1, 4])
def test_padding_keeps_all_of_a_wide_image_in_the_middle_of_white(scale: int) -> None:
    pixels = decode_image(halves(8 * scale, 4 * scale), "x", 8, "pad")
    assert colours(pixels[:2]) == colours(pixels[6:]) == {(255, 255, 255)}
    assert colours(pixels[2:6, :4]) == {RED}
    assert colours(pixels[2:6, 4:]) == {BLUE}


@pytest.mark.parametrize(("width", "height"), [(32, 4), (4, 32), (16, 16), (64, 8)])
def test_stretching_fills_the_square_with_all_of_the_image(width: int, height: int) -> None:
    pixels = decode_image(halves(width, height), "x", 8, "stretch").astype(int)
    np.testing.assert_allclose(pixels[:, :3], np.broadcast_to(RED, (8, 3, 3)), atol=20)
    np.testing.assert_allclose(pixels[:, 5:], np.broadcast_to(BLUE, (8, 3, 3)), atol=20)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_square_image_is_the_same_under_every_policy(resize: str) -> None:
    for side in (5, 8, 21):
        content = encoded(noise(side, side))
        expected = decode_image(content, "x", 8)
        assert np.abs(decode_image(content, "x", 8, resize).astype(int) - expected).max() <= 1

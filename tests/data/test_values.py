"""Images of more than 8 bits: one range for a source, and a refusal by name where there is none."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from bad_files import encoded, put
from colour_profiles import deep_png
from PIL import Image
from refusal import refusal
from small_params import DATA

from advloop.data.dataset import load_dataset
from advloop.data.images import decode_image, open_image
from advloop.data.listing import list_items
from advloop.data.prepare import prepare
from advloop.data.sources import open_source
from advloop.data.values import ValueRange, describe_range
from advloop.params.data import DataParams

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def tiff(values):
    return encoded(Image.fromarray(values), "TIFF")


def floats(top, low=0.0):
    return "tif", tiff((low + (top - low) * RAMP).astype(np.float32))


def sixteen(top, low=0):
    return "png", encoded(Image.fromarray((low + (top - low) * RAMP).round().astype(np.uint16)))


def big_endian(top):
    values = (top * RAMP).round().astype(">u2")
    return "tif", encoded(Image.frombytes("I;16B", (8, 8), values.tobytes()), "TIFF")


def wide(top):
    return "png", encoded(Image.fromarray((top * RAMP).round().astype(np.int32)), "TIFF")


def colour(top, channels=3, rest=0):
    values = np.stack([(top * RAMP).round()] * channels, axis=2).astype(np.uint16)
    values[..., 3:] = rest
    return "png", deep_png(values)


def flat(value):
    return "tif", tiff(np.full((8, 8), value, np.float32))


EIGHT = "png", encoded(Image.fromarray((200 * RAMP).astype(np.uint8)))


def run(tmp_path, *files, on_error="stop", value_range=None, groups=10, each=8):
    """Stage prepare on a source whose first images are ``files``; all others have 8 bits."""
    for k in range(groups * each):
        ending, content = files[k] if k < len(files) else EIGHT
        put(f"images/{k % groups}/{k:03d}.{ending}", content)(tmp_path)
    params = DATA.model_copy(
        update={"on_error": on_error, "value_range": value_range, "image_size": 8}
    )
    source = open_source(tmp_path / "images")
    made = tmp_path / "made"
    written, _ = prepare(
        source, list_items(source), params, made, lambda items: items, lambda _: None
    )
    dataset = load_dataset(made)
    order = np.argsort([file.partition("/")[2] for file in dataset.files])
    return written, dataset.images[order]


def levels(images, k):
    return int(images[k].min()), int(images[k].max())


@pytest.mark.parametrize(
    ("files", "white", "brightest"),
    [
        ([floats(1.0), floats(0.5)], 1, [255, 128]),
        ([floats(0.2)], 1, [51]),
        ([floats(200), floats(300)], 300, [170, 255]),
        ([floats(3.5), floats(3.0, 1)], 3.5, [255, 219]),
        ([sixteen(4000), sixteen(2047)], 4095, [249, 127]),
        ([sixteen(250)], 255, [250]),
        ([sixteen(1000)], 1023, [249]),
        ([sixteen(16383), sixteen(8191)], 16383, [255, 127]),
        ([sixteen(65535), sixteen(250)], 65535, [255, 1]),
        ([sixteen(65535), big_endian(32896), wide(32896)], 65535, [255, 128, 128]),
        ([wide(1_000_000), sixteen(65535)], 1_000_000, [255, 17]),
    ],
    ids=str,
)
def test_range_is_one_for_the_source_and_written_down(tmp_path, files, white, brightest):
    written, images = run(tmp_path, *files)
    assert [levels(images, k)[1] for k in range(len(files))] == brightest
    assert levels(images, len(files)) == (0, 200), "8 bits stay as they are"
    record = json.loads((tmp_path / "made/value_range.json").read_text())
    assert record == written.values
    found = {name: record[name] for name in ("black", "white", "images", "stated", "clipped")}
    expected = {"black": 0, "white": white, "images": len(files), "stated": False, "clipped": 0}
    assert found == expected
    assert f"0 becomes black, {white:.6g} white; data.value_range" in describe_range(record)


def test_source_of_8_bits_has_no_range(tmp_path):
    written, _ = run(tmp_path, ("png", encoded(Image.new("1", (8, 8), 1))), colour(65535))
    assert written.values is None
    assert not (tmp_path / "made/value_range.json").exists()


def test_stated_range_clips_and_counts_what_is_outside(tmp_path):
    written, images = run(
        tmp_path, sixteen(4000), sixteen(50), floats(300, -1000), value_range=[100, 200]
    )
    assert [levels(images, k) for k in range(3)] == [(0, 255), (0, 0), (0, 255)]
    assert describe_range(written.values) == (
        "images of more than 8 bits: 3, of values from -1000 to 4000; 100 becomes black, 200 "
        "white; images of which values are clipped: 3"
    )


@pytest.mark.parametrize(
    ("files", "stated", "says"),
    [
        ([floats(1.0), floats(1.0, -0.5)], None, "1/001.tif holds -0.5, and a range from 0"),
        ([floats(9.0, -3.4e38)], None, "0/000.tif holds -3.4e+38"),
        ([wide(5), ("tif", tiff((RAMP * -9).astype(np.int32)))], None, "1/001.tif holds -9"),
        ([flat(7), flat(7)], None, "all values of 2 images of more than 8 bits are 7"),
        ([sixteen(0)], None, "are 0 (0/000.png)"),
        ([floats(1), sixteen(4095)], None, "0/000.tif holds floats and 1/001.png integers"),
        ([colour(4095)], None, "0/000.png has 16-bit colour of values below 4,096"),
        ([colour(4095, 4, 65535), colour(1000, 2)], None, "16-bit colour of values below"),
        ([colour(65535)], [0, 4095], "data.value_range=[0, 4095] cannot be applied"),
        ([], [0, 4095], "data.value_range=[0, 4095], but no image has more than 8 bits"),
        ([floats(1)], [2, 9], "data.value_range=[2, 9], but all values are in [0, 1]"),
        ([sixteen(9, 5)], [0, 1], "data.value_range=[0, 1], but all values are in [5, 9]"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_range_without_sense_is_refused_by_name_and_nothing_is_written(
    tmp_path, files, stated, says
):
    message = refusal(run, tmp_path, *files, value_range=stated, on_error="skip")
    assert message.startswith(f"{tmp_path / 'images'}: ")
    assert says in message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_image_of_values_that_are_not_finite_is_refused_or_left_out_by_name(tmp_path, bad):
    values = RAMP.astype(np.float32)
    values[3, 3] = bad
    files = ("tif", tiff(values)), floats(1.0)
    message = refusal(run, tmp_path, *files)
    assert "0/000.tif: not a readable image (it holds NaN or infinity)" in message
    written, images = run(tmp_path, *files, on_error="skip")
    assert list(written.skipped) == ["0/000.tif"]
    assert levels(images, 0) == (0, 255)


def test_transparent_value_of_a_deep_image_is_white():
    image = Image.fromarray((4095 * RAMP).astype(np.uint16))
    content = encoded(image, transparency=0)
    pixels = decode_image(content, "x", 8, values=ValueRange(0, 4095))
    assert pixels[0, 0].tolist() == pixels[-1, -1].tolist() == [255] * 3
    assert pixels[0, 1].tolist() == [4] * 3


@pytest.mark.parametrize("kind", [sixteen, big_endian, floats, wide], ids=lambda k: k.__name__)
def test_deep_image_is_turned_as_its_exif_says(kind):
    image = Image.open(io.BytesIO(kind(255)[1]))
    turned = Image.Exif()
    turned[0x112] = 3
    content = encoded(image, "TIFF", exif=turned)
    assert open_image(content, "x", ValueRange(0, 255)).getpixel((0, 0)) == (255, 255, 255)


def test_params_take_a_range_of_whole_numbers():
    values = DATA.model_dump() | {"value_range": [0, 4095]}
    assert DataParams.model_validate(values).value_range == [0, 4095]

"""What a source's images have in common is found, and said in one line each."""

from __future__ import annotations

import numpy as np
import pytest
from bad_files import encoded
from PIL import Image

from advloop.data import findings as module
from advloop.data.findings import findings, look_at
from advloop.data.images import decode_image
from advloop.data.manifests import Item

SPLITS = ("train", "val", "tune", "test")


def pictures(count, low=0, high=256):
    """Blocks of random colours, which no blur makes alike; the same in any order of the tests."""
    blocks = np.random.default_rng(1).integers(low, high, (count, 4, 4, 3)).astype(np.uint8)
    return list(blocks.repeat(8, axis=1).repeat(8, axis=2))


def found(images, splits=None):
    items = [Item(f"{k}.png", str(k)) for k in range(len(images))]
    splits = splits or [SPLITS[k % 4] for k in range(len(images))]
    return findings([look_at(image) for image in images], items, splits)


def flat(*colour):
    return np.broadcast_to(np.array(colour, np.uint8), (32, 32, 3))


def noisy(image):
    noise = np.random.default_rng(2).uniform(0, 5, image.shape)
    return (image * 0.98 + noise).round().astype(np.uint8)


def compressed(image):
    return decode_image(encoded(Image.fromarray(image), "JPEG", quality=90, subsampling=0), "x", 32)


def clipped(image):
    return np.clip(image, 2, 253)


def test_different_images_are_no_finding():
    assert found(pictures(40)) == []


def test_copies_are_told_from_those_in_another_split():
    images = pictures(8)
    assert found([*images, images[0]], [*SPLITS, *SPLITS, "train"]) == [
        "images that are copies of one in their split: 1 (8.png = 0.png); keep one of each"
    ]
    assert found([*images, images[0]], [*SPLITS, *SPLITS, "test"]) == [
        "images that are copies of one in another split: 1 (8.png (test) = 0.png (train)); "
        "evaluation sees training images, so put them into one group"
    ]


@pytest.mark.parametrize("change", [noisy, clipped, compressed], ids=lambda change: change.__name__)
def test_image_that_looks_like_one_of_another_split_is_named(change):
    images = pictures(8)
    near = change(images[2])
    (line,) = found([*images, near], [*SPLITS, *SPLITS, "val"])
    says = "images that look like one in another split: 1 (8.png (val) ~ 2.png (tune)); put "
    assert line.startswith(says)
    assert found([*images, near], [*SPLITS, *SPLITS, "tune"]) == []


def test_images_of_one_colour_are_counted_whatever_the_colour():
    lines = found([*pictures(4), flat(0, 0, 0), flat(255, 0, 9), flat(7, 7, 7)])
    assert lines == [
        "images of one colour: 3 (4.png, 5.png, 6.png); data.max_flat=0.999 leaves them out"
    ]


@pytest.mark.parametrize(
    ("images", "count"),
    [
        (pictures(8, 0, 4), 8),  # a map of labels
        (pictures(8, 100, 130), 8),
        ([*pictures(3), *pictures(5, 0, 16), flat(0, 0, 0)], 5),  # beside an outlier
        (pictures(3), 0),
        ([*pictures(5), *pictures(3, 0, 16)], 0),
    ],
    ids=["labels", "grey", "most", "none", "few"],
)
def test_few_levels_in_most_images_are_a_finding(images, count):
    lines = [line for line in found(images, ["train"] * len(images)) if "levels" in line]
    assert len(lines) == (count > 0)
    says = f"images that use fewer than 32 of 256 levels: {count} ("
    assert all(line.startswith(says) for line in lines)


def test_a_large_source_is_compared_in_part(monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPARED", 30)
    images = pictures(40)
    (line,) = found([*images, *map(noisy, images)], ["train"] * 40 + ["test"] * 40)
    assert 1 <= int(line.split(": ")[1].split()[0]) < 30

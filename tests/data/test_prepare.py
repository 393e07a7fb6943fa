"""Preparation: one array in the manifest's order, and what a bad image does to it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bad_files import encoded
from PIL import Image
from refusal import refusal
from small_params import DATA

from advloop.data.dataset import load_dataset
from advloop.data.manifests import Item
from advloop.data.prepare import prepare
from advloop.data.splits import assign_splits

SIZE = 8
GOOD = encoded(Image.new("RGB", (SIZE, SIZE), "red"))
OTHER = encoded(Image.new("RGB", (SIZE, SIZE), "blue"))
BAD = "042/007.png"


class Fake:
    """A source without a disk: red images, some blue ones, and the ``bad`` ones."""

    name = "fake"

    def __init__(self, groups, each, bad=lambda _: False):
        names = [(f"{g:03d}", f"{k:03d}") for g in range(groups) for k in range(each)]
        self.items = [Item(f"{group}/{name}.png", group) for group, name in names]
        self.bad, self.read_whole = bad, []

    def read(self, file, size=-1):
        content = GOOD[:45] if self.bad(file) else OTHER if file.endswith("7.png") else GOOD
        if size >= 0:
            return content[:size]
        self.read_whole.append(file)
        return content


def run(source, on_error, folder):
    """What prepare says about the images that it leaves out."""
    said = []
    params = DATA.model_copy(update={"source": "fake", "on_error": on_error, "image_size": SIZE})
    prepare(source, source.items, params, folder, lambda items: items, said.append)
    return said


def test_images_of_8_bits_are_read_once_and_in_order(tmp_path):
    source = Fake(10, 8)
    run(source, "stop", tmp_path)
    assert source.read_whole == [item.file for item in source.items]


def test_array_is_the_one_that_numpy_saves_whatever_is_left_out(tmp_path):
    rest = Fake(10, 8, lambda file: file in ("000/000.png", "003/001.png"))
    for on_error, source in (("stop", Fake(10, 8)), ("skip", rest)):
        run(source, on_error, tmp_path / on_error)
        images = load_dataset(tmp_path / on_error).images
        np.save(tmp_path / "expected.npy", np.array(images))
        expected = (tmp_path / "expected.npy").read_bytes()
        assert (tmp_path / on_error / "images.npy").read_bytes() == expected
        assert {tuple(map(int, image[0, 0])) for image in images} == {(255, 0, 0), (0, 0, 255)}


def test_one_bad_image_in_a_thousand_stops_the_run_by_name(tmp_path):
    message = refusal(run, Fake(50, 20, BAD.__eq__), "stop", tmp_path)
    assert message.startswith(f"fake: {BAD}: not a readable image")
    assert message.endswith("replace or remove it, or set data.on_error=skip")
    assert list(tmp_path.iterdir()) == []


def test_one_bad_image_in_a_thousand_is_left_out_named_and_counted(tmp_path):
    source = Fake(50, 20, BAD.__eq__)
    (said,) = run(source, "skip", tmp_path)
    assert said.startswith(f"fake: {BAD}: not a readable image")
    record = json.loads((tmp_path / "skipped.json").read_text())
    assert record == {"count": 1, "of": 1000, "images": {BAD: said}}
    dataset = load_dataset(tmp_path)
    kept = [item for item in source.items if item.file != BAD]
    assert dataset.files == [item.file for item in kept]
    assert dataset.splits == assign_splits(kept, 0.2, 0.2, 0.4, 0)


def test_group_without_a_readable_image_is_in_no_split_and_the_others_stay_whole(tmp_path):
    source = Fake(20, 8, lambda file: file.startswith("004/") or file == "005/003.png")
    assert len(run(source, "skip", tmp_path)) == 9
    dataset = load_dataset(tmp_path)
    assert len(dataset.files) == 20 * 8 - 9
    assert "004" not in dataset.groups
    assert len({*zip(dataset.groups, dataset.splits, strict=True)}) == len({*dataset.groups}) == 19


def test_record_is_kept_under_skip_alone(tmp_path):
    for on_error in ("stop", "skip"):
        run(Fake(10, 8), on_error, tmp_path / on_error)
    assert not (tmp_path / "stop/skipped.json").exists()
    record = json.loads((tmp_path / "skip/skipped.json").read_text())
    assert record == {"count": 0, "of": 80, "images": {}}
    for file in ("images.npy", "manifest.csv"):
        assert (tmp_path / "stop" / file).read_bytes() == (tmp_path / "skip" / file).read_bytes()


@pytest.mark.parametrize(
    ("good", "says"), [("none", "fake: none of 80 images is readable"), ("000/", "1 group of")]
)
def test_too_few_readable_images_are_an_error_under_skip_and_leave_nothing(tmp_path, good, says):
    source = Fake(10, 8, lambda file: not file.startswith(good))
    assert says in refusal(run, source, "skip", tmp_path)
    assert list(tmp_path.iterdir()) == []


class Squares:
    """A source of 16-pixel images, each with a quarter of its own colour per tile of 8."""

    name = "squares"

    def __init__(self, groups=10, each=8):
        names = [(f"{g:03d}", f"{k:03d}") for g in range(groups) for k in range(each)]
        self.items = [Item(f"{group}/{name}.png", group) for group, name in names]

    def read(self, file, size=-1):
        image = Image.new("RGB", (16, 16), "white")
        image.paste((int(file[:3]), 0, 0), (8, 0, 16, 8))  # above right: flat, of its group
        image.paste((0, 255, int(file[:3])), (0, 8, 8, 12))  # below left: half green, of its group
        return encoded(image)[: size if size >= 0 else None]


def tiled(folder, **changed):
    source = Squares()
    params = DATA.model_copy(
        update={"source": "squares", "on_error": "stop", "image_size": SIZE, "tiles": 2} | changed
    )
    written, splits = prepare(source, source.items, params, folder, lambda x: x, lambda _: None)
    return written, splits, load_dataset(folder)


def test_an_image_becomes_its_tiles_row_by_row_in_its_own_group_and_split(tmp_path):
    written, splits, dataset = tiled(tmp_path)
    assert (len(dataset.files), written.flat) == (10 * 8 * 4, 0)
    assert dataset.files[4:8] == [f"000/001.png#{r},{c}" for r in (1, 2) for c in (1, 2)]
    group = dataset.groups.index("007")
    corners = dataset.images[group : group + 4, 0, 0].tolist()
    assert corners == [[255] * 3, [7, 0, 0], [0, 255, 7], [255] * 3]
    assert len(set(zip(dataset.groups, splits, strict=True))) == 10


def test_tiles_flatter_than_max_flat_are_left_out_and_counted(tmp_path):
    written, _, dataset = tiled(tmp_path, max_flat=0.5)
    assert written.flat == 10 * 8 * 3
    assert {file.split("#")[1] for file in dataset.files} == {"2,1"}
    whole, _, _ = tiled(tmp_path / "whole", tiles=1, max_flat=0.7)
    assert (len(whole.items), whole.flat) == (80, 0)


def test_a_source_of_one_image_is_refused_whatever_made_its_pixels_the_same(tmp_path):
    source = Fake(10, 8)
    for content in (GOOD, encoded(Image.new("L", (30, 40), 0), "JPEG")):
        source.read = lambda *_, content=content: content
        message = refusal(run, source, "skip", tmp_path)
        assert message.startswith("fake: all 80 prepared images are the same")
    assert list(tmp_path.iterdir()) == []


def test_a_source_of_flat_images_alone_is_one_line_that_says_what_to_raise(tmp_path):
    message = refusal(tiled, tmp_path, max_flat=0.4)
    assert message.startswith("squares: ")
    assert message.endswith("raise data.max_flat")
    assert list(tmp_path.iterdir()) == []

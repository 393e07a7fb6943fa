"""Images and manifest.csv come back as they were written; anything else is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from refusal import refusal

from advloop.data.dataset import Dataset, classes_of, load_dataset, read_manifest, write_manifest

ROWS = [
    ["a.png", "g1", "train"],
    ["b, c.png", 'g"2"', "test"],
    ["c.png", "g1", "train"],
    ["größe.png", "g 3", "val"],
    ["e.png", "g4", "tune"],
]
IMAGES = np.arange(len(ROWS) * 4 * 4 * 3, dtype=np.uint8).reshape(len(ROWS), 4, 4, 3)


def save(folder, images=IMAGES):
    write_manifest(folder / "manifest.csv", ROWS)
    if images is not None:
        np.save(folder / "images.npy", images)
    return folder


# --- manifest.csv ---


def test_manifest_comes_back_as_it_was_written_in_unix_lines(tmp_path):
    path = tmp_path / "deep" / "manifest.csv"
    with_classes = [["a.png", "g", "train", "day"], ["b.png", "h", "val", "night, late"]]
    for rows, header, classes in (
        (ROWS, b"file,group,split\n", []),
        ([], b"file,group,split\n", []),
        (with_classes, b"file,group,split,class\n", ["day", "night, late"]),
    ):
        write_manifest(path, rows)
        assert read_manifest(path) == rows
        assert path.read_bytes().startswith(header)
        assert b"\r" not in path.read_bytes()
        assert classes_of(read_manifest(path)) == classes


OTHER_COLUMNS = {
    "empty": b"",
    "two columns": b"file,group\na,b\n",
    "other order": b"group,file,split\nb,a,train\n",
    "short row": b"file,group,split\na,b\n",
    "long row": b"file,group,split\na,b,train,extra\n",
    "binary": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", OTHER_COLUMNS.values(), ids=OTHER_COLUMNS)
def test_manifest_with_other_columns_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    message = refusal(read_manifest, path)
    assert message.startswith(f"{path}: ")
    assert "dvc repro" in message


# --- The data set ---


def test_dataset_is_mapped_read_only_in_the_order_of_its_manifest(tmp_path):
    dataset = load_dataset(save(tmp_path))
    np.testing.assert_array_equal(dataset.images, IMAGES)
    assert isinstance(dataset.images, np.memmap)
    assert not dataset.images.flags.writeable
    assert [dataset.files, dataset.groups, dataset.splits] == list(
        map(list, zip(*ROWS, strict=True))
    )
    assert [list(dataset.manifest_row(row)) for row in range(len(ROWS))] == ROWS


def test_rows_of_a_split_are_those_of_the_manifest():
    dataset = Dataset(IMAGES[:3], ["a", "b", "c"], ["g", "g", "h"], ["val", "test", "val"])
    found = {split: dataset.rows(split).tolist() for split in ("train", "val", "test")}
    assert found == {"train": [], "val": [0, 2], "test": [1]}
    assert dataset.rows("val").dtype == np.int64


def archive_of_arrays():
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES)
    return buffer.getvalue()


FOREIGN = [IMAGES[:-1], np.concatenate([IMAGES, IMAGES]), IMAGES.astype(np.float32), IMAGES[..., 0]]
DAMAGED = [b"", b"text", b"\x93NUMPY\x01\x00", archive_of_arrays(), None]


@pytest.mark.parametrize(
    ("images", "says"),
    [(images, "does not match manifest.csv") for images in FOREIGN]
    + [(content, "cannot be read") for content in DAMAGED],
)
def test_images_that_do_not_match_the_manifest_are_refused(tmp_path, images, says):
    save(tmp_path, None if isinstance(images, bytes) else images)
    if isinstance(images, bytes):
        (tmp_path / "images.npy").write_bytes(images)
    message = refusal(load_dataset, tmp_path)
    assert message.startswith(f"{tmp_path / 'images.npy'}: {says}")
    assert "dvc repro" in message


def test_manifest_that_is_missing_or_lacks_a_split_is_refused(tmp_path):
    path = tmp_path / "manifest.csv"
    assert f"{path}: not found; make it with `dvc repro`" in refusal(load_dataset, tmp_path)
    write_manifest(path, [row for row in ROWS if row[2] != "tune"])
    assert f"{path}: names no image of split tune" in refusal(load_dataset, tmp_path)

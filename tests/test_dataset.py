"""The prepared data set is read back only where images and manifest match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advloop.core.errors import UserError
from advloop.dataset import Dataset, load_dataset
from advloop.manifest import write_manifest

ROWS = [
    ("a.png", "g1", "train"),
    ("b.png", "g2", "test"),
    ("c.png", "g1", "train"),
    ("d.png", "g3", "val"),
    ("e.png", "g4", "tune"),
]
IMAGES = np.arange(len(ROWS) * 4 * 4 * 3, dtype=np.uint8).reshape(len(ROWS), 4, 4, 3)


def save(folder: Path, images: np.ndarray | None = IMAGES) -> Path:
    write_manifest(folder / "manifest.csv", ROWS)
    if images is not None:
        np.save(folder / "images.npy", images)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    assert "dvc repro" in message
    return message


def test_dataset_comes_back_in_the_order_of_its_manifest(tmp_path: Path) -> None:
    dataset = load_dataset(save(tmp_path))
    np.testing.assert_array_equal(dataset.images, IMAGES)
    assert dataset.files == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert dataset.groups == ["g1", "g2", "g1", "g3", "g4"]
    assert dataset.splits == ["train", "test", "train", "val", "tune"]


def test_images_are_mapped_and_not_writable(tmp_path: Path) -> None:
    images = load_dataset(save(tmp_path)).images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_rows_of_a_split_are_those_of_the_manifest() -> None:
    dataset = Dataset(IMAGES[:3], ["a", "b", "c"], ["g", "g", "h"], ["val", "test", "val"])
    assert dataset.rows("val").tolist() == [0, 2]
    assert dataset.rows("test").tolist() == [1]
    assert dataset.rows("train").tolist() == []
    assert dataset.rows("val").dtype == np.int64


@pytest.mark.parametrize(
    "images",
    [IMAGES[:-1], np.concatenate([IMAGES, IMAGES]), IMAGES.astype(np.float32), IMAGES[..., 0]],
    ids=["fewer", "more", "float", "three-dimensional"],
)
def test_images_that_do_not_match_the_manifest_are_refused(
    tmp_path: Path, images: np.ndarray
) -> None:
    assert "does not match manifest.csv" in refusal(save(tmp_path, images))


def test_missing_images_are_refused(tmp_path: Path) -> None:
    assert "images.npy: cannot be read" in refusal(save(tmp_path, None))


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    assert "manifest.csv: not found" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_damaged_images_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    save(tmp_path, None)
    (tmp_path / "images.npy").write_bytes(content)
    assert "images.npy" in refusal(tmp_path)


def test_archive_of_arrays_in_place_of_images_is_refused(tmp_path: Path) -> None:
    with (save(tmp_path) / "images.npy").open("wb") as file:
        np.savez(file, images=IMAGES)
    assert "images.npy" in refusal(tmp_path)


def test_dataset_without_images_is_refused_in_one_line(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.csv", [])
    np.save(tmp_path / "images.npy", IMAGES[:0])
    refusal(tmp_path)

"""Captions of images: from a manifest's column to the labels of latents and samples."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refusal

from advloop.data.classes import (
    Classes,
    label_latents,
    load_classes,
    save_classes,
    without_captions,
)
from advloop.data.dataset import Dataset, load_dataset, read_captions, write_manifest
from advloop.data.listing import describe_captions, list_items
from advloop.data.sources import FolderSource

ROWS = [[f"{k}.png", f"g{k}", split] for k, split in enumerate(("train", "val", "tune", "test"))]


def source_of(folder: Path, *captions: str | None) -> FolderSource:
    """Images 0.png, … with these captions in column ``text``; None: a row that is too short."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "group", "text"])
        for index, caption in enumerate(captions):
            (folder / f"{index}.png").touch()
            writer.writerow([f"{index}.png", "g", *([] if caption is None else [caption])])
    return FolderSource(folder, lambda _: False)


def test_captions_are_those_of_the_column_without_outer_blanks(tmp_path):
    texts = ["a cat", ' "two", cats ', "猫が二匹", "a" * 2000, "a cat"]
    items = list_items(source_of(tmp_path, *texts), captions="text")
    assert [item.caption for item in items] == [text.strip() for text in texts]
    assert {item.class_name for item in items} == {None}
    assert {item.caption for item in list_items(source_of(tmp_path, *texts))} == {None}
    (line,) = describe_captions(items)
    assert line == "captions: 5, of them 4 different; 4 to 2000 characters, such as 'a cat'"
    assert describe_captions(list_items(source_of(tmp_path, *texts))) == []


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("", "text of 1.png is empty; describe the image there, or set data.captions=null"),
        ("  ", "text of 1.png is empty"),
        (None, "text of 1.png is empty"),
        ("two\nlines", "line 3: 'two' goes on in the next line"),
        ("a\x1fb", "text of 1.png holds '\\x1f', a line break or another control character"),
        ("a\x1b[2J", "text of 1.png holds '\\x1b', a line break"),
        ("a\u2028b", "text of 1.png holds '\\u2028', a line break"),
        ("a" * 2001, "text of 1.png has more than 2000 characters, 2001; shorten it"),
    ],
    ids=["empty", "blank", "missing", "line break", "unit", "escape", "separator", "long"],
)
def test_a_caption_that_cannot_be_used_is_one_line_that_names_its_image(tmp_path, caption, says):
    message = refusal(list_items, source_of(tmp_path, "a cat", caption), captions="text")
    assert message.startswith(f"{tmp_path}/manifest.csv: {says}")


def test_captions_need_a_manifest_with_their_column(tmp_path):
    source = source_of(tmp_path, "a cat")
    message = refusal(list_items, source, captions="texts")
    assert message.startswith(f"{tmp_path}/manifest.csv: column texts is missing; add it")
    (tmp_path / "manifest.csv").unlink()
    message = refusal(list_items, FolderSource(tmp_path, lambda _: False), captions="text")
    assert "data.captions=text is a column of manifest.csv, which is not there; add it" in message
    rows = [{"file": "0.png", "wad": "w", "map": "m"}]
    (tmp_path / "index.json").write_text(json.dumps(rows))
    message = refusal(list_items, FolderSource(tmp_path, lambda _: False), captions="text")
    assert "index.json: text of 0.png is empty" in message


def test_prepared_images_have_their_captions_in_the_order_of_the_manifest(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((4, 2, 2, 3), np.uint8))
    write_manifest(tmp_path / "manifest.csv", ROWS)
    path, captions = tmp_path / "captions.json", ["b", "a", "b", "c"]
    assert not load_dataset(tmp_path).conditions
    path.write_text(json.dumps(captions))
    dataset = load_dataset(tmp_path)
    assert (dataset.captions, dataset.conditions, dataset.classes) == (captions, captions, [])
    assert len(dataset.manifest_row(0)) == 3
    path.write_text(json.dumps(captions[1:]))
    assert refusal(load_dataset, tmp_path).startswith(f"{path}: 3 captions of 4 images; make both")
    for bad in ("{", "{}", "[1, 2, 3, 4]", '"text"'):
        path.write_text(bad)
        assert refusal(read_captions, path).startswith(f"{path}: not ")


def captioned() -> Classes:
    """Forty images of thirty-one captions, in train twice."""
    own = torch.cat([torch.arange(31), torch.zeros(9, dtype=torch.int64)])
    return Classes(tuple(f"{k:02d}" for k in range(31)), {"train": own.repeat(2)}, captions=True)


def test_labels_of_latents_are_those_of_captions_and_survive_their_file(tmp_path):
    splits, captions = ["train", "val", "train", "test"], ["b", "b", "a", "c"]
    names = list("wxyz")
    dataset = Dataset(np.zeros((4, 1, 1, 3), np.uint8), names, names, splits, (), captions)
    save_classes(tmp_path, label_latents(dataset, {"train": 4, "val": 1, "test": 1}))
    loaded = load_classes(tmp_path)
    assert (loaded.names, loaded.captions) == (("a", "b", "c"), True)
    assert loaded.labels["train"].tolist() == [1, 0, 1, 0]
    assert without_captions(loaded) is without_captions(None) is None
    of_classes = Classes(("a", "b"), loaded.labels)
    assert without_captions(of_classes) is of_classes


@pytest.mark.parametrize("count", [1, 40, 80, 200])
def test_samples_get_the_captions_of_random_images_each_again_only_after_all(count):
    classes = captioned()
    labels = classes.fake_labels(count, 0, 1)
    assert len(labels) == count
    assert torch.equal(labels, classes.fake_labels(count, 0, 1))
    if count >= 40:
        assert not torch.equal(labels, classes.fake_labels(count, 0, 2))
    found, rounds = Counter(labels.tolist()), count / 80
    assert all(2 * int(rounds) <= found[k] <= 2 * rounds + 2 for k in range(1, 31))
    if count == 80:
        assert found[0] == 20
    if count == 40:
        assert max(labels.tolist()) > 25, "not the first ones alone"

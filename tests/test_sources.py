"""Folders, archives and their manifests: groups come out right, bad ones are refused."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bad_files import claiming, inflating

from advloop.core.errors import UserError
from advloop.preparation.sources import Item, list_items, open_source


def fill(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    return root


def zipped(path: Path, *files: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(file, file)
    return path


def groups(path: Path) -> dict[str, str]:
    return {item.file: item.group for item in list_items(open_source(path))}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list_items(open_source(path))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


def test_folder_that_holds_an_image_is_its_group(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "a/2.JPG", "b/c/3.webp", "b/4.png")
    assert groups(tmp_path) == {"a/1.png": "a", "a/2.JPG": "a", "b/c/3.webp": "b/c", "b/4.png": "b"}


def test_image_at_the_top_is_its_own_group(tmp_path: Path) -> None:
    assert groups(fill(tmp_path, "1.png", "2.png")) == {"1.png": "1.png", "2.png": "2.png"}


def test_items_are_sorted_and_files_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a.png", "notes.txt", "README", "c/z.gif", "c/model.pt")
    assert list(groups(tmp_path)) == ["a.png", "b.png", "c/z.gif"]


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    assert list(groups(fill(tmp_path, "a.png", ".b.png", "c/._d.png"))) == ["a.png"]


def test_files_in_hidden_folders_are_ignored(tmp_path: Path) -> None:
    assert list(groups(fill(tmp_path, "a.png", ".thumbnails/b.png"))) == ["a.png"]


def test_source_may_itself_lie_in_a_hidden_folder(tmp_path: Path) -> None:
    assert list(groups(fill(tmp_path / ".cache", "a.png"))) == ["a.png"]


def test_archive_reads_like_the_folder_that_was_packed(tmp_path: Path) -> None:
    files = ["a/1.png", "a/2.png", "b/3.png", "4.png"]
    folder = fill(tmp_path / "folder", *files)
    archive = zipped(tmp_path / "x.zip", *files)
    assert groups(archive) == groups(folder)
    assert all(
        open_source(archive).read(file) == open_source(folder).read(file) == file.encode()
        for file in files
    )


def test_single_top_folder_of_an_archive_is_no_group(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "x.ZIP", "top/", "top/a/1.png", "top/2.png")
    assert groups(archive) == {"a/1.png": "a", "2.png": "2.png"}
    assert open_source(archive).read("a/1.png") == b"top/a/1.png"


def test_hidden_members_of_an_archive_are_ignored(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "x.zip", "a/1.png", "a/._1.png", ".thumbnails/2.png")
    assert [Path(file).name for file in groups(archive)] == ["1.png"]


def test_damaged_member_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored: the checksum tells
        archive.writestr("a.png", b"0123456789" * 20)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip: a\.png cannot be read") as caught:
        open_source(path).read("a.png")
    assert "\n" not in str(caught.value)


def test_member_that_does_not_decompress_is_refused_by_name(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", "a.png" * 20)
    name = "a.png" * 20
    content = bytearray(path.read_bytes())
    start = 30 + len(name)  # the local header and the name come first
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        open_source(path).read(name)


@pytest.mark.parametrize("name", ["missing", "missing.zip", "file.txt"])
def test_path_that_is_neither_folder_nor_archive_is_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "file.txt")
    assert "data.source=" in refusal(tmp_path / name)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "holds no image" in refusal(tmp_path)


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "secret.png", "data/a.png")
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "secret.png")
    source = open_source(tmp_path / "data")
    with pytest.raises(UserError, match=r"b\.png: leads out of"):
        source.read("b.png")
    with pytest.raises(UserError, match="leads out of"):
        source.read("../secret.png")
    assert source.read("a.png") == b"data/a.png"


def test_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert open_source(tmp_path).read("b.png") == b"a.png"


def test_file_that_vanished_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        open_source(tmp_path).read("gone.png")


CSV = "file,group,split\nb.png,one,test\na.png,one,test\nc/d.png,two,\n"


@pytest.mark.parametrize(
    "content",
    [CSV, CSV.replace("\n", "\r\n"), "\ufeff" + CSV, CSV.rstrip("\n"), CSV + "\n\n"],
    ids=["lf", "crlf", "bom", "no-last-newline", "blank-lines"],
)
def test_manifest_decides_groups_and_splits(tmp_path: Path, content: str) -> None:
    fill(tmp_path, "a.png", "b.png", "c/d.png", "unlisted.png")
    (tmp_path / "manifest.csv").write_bytes(content.encode())
    assert list_items(open_source(tmp_path)) == [
        Item("a.png", "one", "test"),
        Item("b.png", "one", "test"),
        Item("c/d.png", "two", None),
    ]


def test_manifest_needs_no_split_column_and_may_hold_others(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "manifest.csv").write_text("width,group,file\n10,g,a.png\n")
    assert list_items(open_source(tmp_path)) == [Item("a.png", "g", None)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("image,group\na.png,g\n", "column file is missing"),
        ("file,group\n,g\n", "file is empty"),
        ("file,group\na.png,\n", "group of a.png is empty"),
        ("file,group\na.png\n", "group of a.png is empty"),
        ("file,group,split\na.png,g,Train\n", "split=Train of a.png"),
        ("file,group\n" + "x" * 200_000 + ",g\n", "not a UTF-8 CSV file"),
        ('file,group\n"a\n.png",g\n', "which is not there"),
    ],
)
def test_bad_manifest_is_refused_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "manifest.csv").write_text(content)
    assert reason in refusal(tmp_path)


def test_index_groups_by_map_of_a_wad(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    rows = [
        {"file": "b.png", "wad": "w", "map": "m1", "split": "test"},
        {"file": "a.png", "wad": "w", "map": "m2"},
    ]
    (tmp_path / "index.json").write_text(json.dumps(rows))
    assert list_items(open_source(tmp_path)) == [
        Item("a.png", "w_m2", None),
        Item("b.png", "w_m1", "test"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("null", "not a list of"),
        ('"text"', "not a list of"),
        ("[1]", "not a list of"),
        ('[{"file": "a.png", "map": "m"}]', "not a list of"),
        ('[{"wad": "w", "map": "m"}]', "not a list of"),
        ('[{"file": 1, "wad": "w", "map": "m"}]', "file is empty"),
        ('[{"file": "z.png", "wad": "w", "map": "m"}]', "z.png, which is not there"),
        ("[]", "holds no image"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_index_is_refused_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "index.json").write_text(content)
    assert reason in refusal(tmp_path)


# --- What is read from an untrusted source ---


def test_folder_that_cannot_be_listed_is_refused_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def locked(path: str) -> Any:  # as it is for a user who may not read the folder
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert "b: cannot be read (Permission denied)" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_image_that_may_not_be_read_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UserError, match=r"a\.png: cannot be read \(Permission denied\)"):
        open_source(tmp_path).read("a.png")


def test_member_that_unpacks_to_more_than_it_says_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(claiming(inflating("a.png", 256, {}), 100))
    source = open_source(path)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        source.read("a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20

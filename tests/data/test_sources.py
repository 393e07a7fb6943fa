"""Files of folders and archives: they are read inside the source and within limits, or refused."""

from __future__ import annotations

import errno
import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from bad_files import claiming, inflating, zipped
from refusal import refusal

from advloop.data.sources import open_source


def fill(root, *files):
    """A folder whose files hold their own paths."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    return root


def pack(path, *files):
    path.write_bytes(zipped({file: file.encode() for file in files}))
    return path


def test_archive_reads_like_the_folder_that_was_packed(tmp_path):
    files = ["4.png", "a/1.png", "a/2.png", "b/3.png", "notes.txt"]
    folder = open_source(fill(tmp_path / "folder", *reversed(files)))
    archive = open_source(pack(tmp_path / "x.zip", *reversed(files)))
    assert folder.files() == archive.files() == files
    for file in files:
        assert folder.read(file) == archive.read(file) == file.encode()
        assert folder.read(file, 3) == archive.read(file, 3) == file[:3].encode()


def test_paths_start_below_the_single_top_folder_of_an_archive(tmp_path):
    source = open_source(pack(tmp_path / "x.ZIP", "top/", "top/a/1.png", "top/2.png"))
    assert source.files() == ["2.png", "a/1.png"]
    assert source.read("a/1.png") == b"top/a/1.png"


def test_hidden_files_and_folders_are_ignored_below_the_source(tmp_path):
    files = ["a/1.png", ".b.png", "a/._1.png", ".thumbnails/2.png", "__MACOSX/3.png"]
    assert open_source(fill(tmp_path / ".cache", *files)).files() == ["a/1.png"]
    assert open_source(pack(tmp_path / "x.zip", *files)).files() == ["1.png"]


@pytest.mark.parametrize("name", ["missing", "missing.zip", "file.txt"])
def test_path_that_is_neither_folder_nor_archive_is_refused(tmp_path, name):
    fill(tmp_path, "file.txt")
    assert refusal(open_source, tmp_path / name).startswith(f"data.source={tmp_path / name}: ")


def test_links_are_followed_inside_the_folder_and_files_outside_or_gone_are_refused(tmp_path):
    fill(tmp_path, "secret.png", "data/a.png")
    (tmp_path / "data/b.png").symlink_to(tmp_path / "data/a.png")
    (tmp_path / "data/c.png").symlink_to(tmp_path / "secret.png")
    source = open_source(tmp_path / "data")
    assert source.read("b.png") == b"data/a.png"
    for file in ("c.png", "../secret.png"):
        assert f"{file}: points outside" in refusal(source.read, file)
    assert "gone.png: cannot be read" in refusal(source.read, "gone.png")


def test_folder_that_cannot_be_listed_is_refused_and_not_left_out(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def locked(path):  # as for a user who may not read the folder
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    message = refusal(open_source(tmp_path).files)
    assert message.startswith(f"{tmp_path / 'b'}: cannot be read (Permission denied)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_image_that_may_not_be_read_is_refused_by_name(tmp_path):
    (fill(tmp_path, "a.png") / "a.png").chmod(0)
    message = refusal(open_source(tmp_path).read, "a.png")
    assert "a.png: cannot be read (Permission denied)" in message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member_is_refused_by_name(tmp_path, method):
    content = bytearray(zipped({"a.png": b"0123456789" * 20}, method))
    content[35:39] = b"\xff" * 4  # behind the local header and the name
    (tmp_path / "x.zip").write_bytes(content)
    message = refusal(open_source(tmp_path / "x.zip").read, "a.png")
    assert "x.zip: a.png cannot be read" in message


def test_member_that_unpacks_to_more_than_it_says_takes_no_memory(tmp_path):
    (tmp_path / "x.zip").write_bytes(claiming(inflating("a.png", 256, {}), 100))
    source = open_source(tmp_path / "x.zip")
    tracemalloc.start()
    message = refusal(source.read, "a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "a.png cannot be read" in message
    assert peak < 2**20

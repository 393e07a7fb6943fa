"""manifest.csv comes back as it was written; anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from advloop.core.errors import UserError
from advloop.manifest import read_manifest, write_manifest

ROWS = [["a.png", "g1", "train"], ["b, c.png", 'g"2"', "test"], ["größe.png", "g 3", "val"]]


def test_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "manifest.csv"
    write_manifest(path, ROWS)
    assert read_manifest(path) == ROWS
    assert path.read_bytes().startswith(b"file,group,split\na.png,g1,train\n")
    assert b"\r" not in path.read_bytes()


def test_manifest_without_rows_holds_its_header(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.csv", [])
    assert read_manifest(tmp_path / "manifest.csv") == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"file,group\na,b\n",
        b"group,file,split\nb,a,train\n",
        b"file,group,split\na,b\n",
        b"file,group,split\na,b,train,extra\n",
        b"\xff\xfe\x00",
    ],
    ids=["empty", "two-columns", "other-order", "short-row", "long-row", "binary"],
)
def test_manifest_with_other_columns_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "dvc repro" in message


def test_missing_manifest_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.csv: not found; make it with `dvc repro`"):
        read_manifest(tmp_path / "manifest.csv")

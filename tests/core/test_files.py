"""Files are written whole or not at all, and what is read is never executed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from advloop.core.errors import UserError
from advloop.core.files import (
    atomic_path,
    copy_file,
    load_torch,
    read_json,
    save_torch,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path, read: Callable[[Path], object]) -> str:
    """The one line in which ``read`` refuses ``path``."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "dvc repro" in message
    return message


def mapped(path: Path) -> Any:
    return load_torch(path, mmap=True)


both_ways = pytest.mark.parametrize("load", [load_torch, mapped])


def test_atomic_path_replaces_the_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with atomic_path(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
        assert path.read_text() == text
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("before", [["a.txt"], []])
def test_atomic_path_leaves_the_folder_as_it_was_if_the_writer_fails(
    tmp_path: Path, before: list[str]
):
    for name in before:
        (tmp_path / name).write_text("old")
    with suppress(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError("stopped")
    assert names(tmp_path) == before
    assert [(tmp_path / name).read_text() for name in before] == ["old"] * len(before)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "new"),
        lambda path: write_json(path, {}),
        lambda path: save_torch(path, 1),
        lambda path: copy_file(path.with_name("other"), path),
    ],
)
def test_no_writer_writes_through_a_hard_link_into_the_cache(
    tmp_path: Path, write: Callable[[Path], None]
):
    cached, path = tmp_path / "cached", tmp_path / "path"
    cached.write_text("cached")
    (tmp_path / "other").write_text("other")
    os.link(cached, path)
    write(path)
    assert cached.read_text() == "cached"
    assert path.read_bytes() != b"cached"


def test_new_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_text_keeps_its_line_ends(tmp_path: Path):
    write_text(tmp_path / "a.txt", "ä\r\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä\r\nb\n".encode()


def test_equal_json_is_equal_bytes_and_comes_back(tmp_path: Path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    write_json(first, {"b": [1, 2.5], "a": None})
    write_json(second, {"a": None, "b": [1, 2.5]})
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().index('"a"') < first.read_text().index('"b"')
    assert first.read_text().endswith("}\n")
    assert read_json(first) == {"a": None, "b": [1, 2.5]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path, value: float):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": value})
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_json_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert "not valid JSON" in refusal(path, read_json)


@pytest.mark.parametrize("read", [read_json, load_torch, lambda path: copy_file(path, path)])
def test_missing_file_is_refused_with_the_command_that_makes_it(
    tmp_path: Path, read: Callable[[Path], object]
):
    assert refusal(tmp_path / "a", read).endswith("a: not found; make it with `dvc repro`")


def test_saved_bytes_depend_on_the_content_and_not_on_the_name(tmp_path: Path):
    content = {"weights": torch.arange(5.0), "step": 3, "names": ["a", "b"]}
    first, second, third = (tmp_path / name for name in ("a.pt", "longer_name.bin", "c.pt"))
    save_torch(first, content)
    save_torch(second, content)
    save_torch(third, content | {"step": 4})
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != third.read_bytes()
    loaded = load_torch(second)
    assert torch.equal(loaded.pop("weights"), torch.arange(5.0))
    assert loaded == {"step": 3, "names": ["a", "b"]}


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "executed")


@both_ways
def test_pickle_that_holds_code_is_refused_and_not_executed(
    tmp_path: Path, load: Callable[[Path], object]
):
    path, trace = tmp_path / "a.pt", tmp_path / "trace"
    torch.save({"a": Bomb(trace)}, path)
    assert "refused" in refusal(path, load)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # which shows that the bomb would go off
    assert trace.exists()


@both_ways
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, keep: float, load: Callable[[Path], object]):
    path = tmp_path / "a.pt"
    save_torch(path, torch.ones(50, 50))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    refusal(path, load)


@both_ways
@pytest.mark.parametrize("content", [b"hello", b"<html></html>", b"\x80\x02", b"\0" * 64])
def test_file_of_another_kind_is_refused(
    tmp_path: Path, content: bytes, load: Callable[[Path], object]
):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    refusal(path, load)


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path):
    assert "directory" in refusal(tmp_path, load_torch)
    refusal(tmp_path, lambda path: copy_file(path, path / "copy"))


def test_copy_has_equal_bytes(tmp_path: Path):
    source, target = tmp_path / "a", tmp_path / "deep" / "b"
    source.write_bytes(b"\0\1\2")
    copy_file(source, target)
    assert target.read_bytes() == b"\0\1\2"

"""Files appear whole or not at all, and what is read is never executed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from advloop.core.errors import UserError
from advloop.core.io import atomic_path, copy_file, load_torch, read_json, save_torch, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def one_line(error: BaseException, path: Path) -> str:
    message = str(error)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


def fail_halfway(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stopped")


def test_atomic_path_puts_the_new_file_in_place_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with atomic_path(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
        assert path.read_text() == text
    assert names(path.parent) == ["a.txt"]


def test_atomic_path_keeps_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stopped"):
        fail_halfway(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_atomic_path_makes_no_file_when_the_writer_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fail_halfway(tmp_path / "a.txt")
    assert names(tmp_path) == []


@pytest.mark.parametrize("writer", ["atomic_path", "write_json", "save_torch", "copy_file"])
def test_no_writer_writes_through_a_hard_link_into_the_cache(tmp_path: Path, writer: str) -> None:
    cached, path, other = tmp_path / "cached", tmp_path / "path", tmp_path / "other"
    cached.write_text("cached")
    other.write_text("other")
    os.link(cached, path)
    if writer == "atomic_path":
        with atomic_path(path) as temporary:
            temporary.write_text("new")
    elif writer == "write_json":
        write_json(path, {})
    elif writer == "save_torch":
        save_torch(path, 1)
    else:
        copy_file(other, path)
    assert cached.read_text() == "cached"
    assert path.read_bytes() != b"cached"


def test_new_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_json_is_sorted_and_comes_back(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    write_json(first, {"b": [1, 2.5], "a": None})
    write_json(second, {"a": None, "b": [1, 2.5]})
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().index('"a"') < first.read_text().index('"b"')
    assert first.read_text().endswith("}\n")
    assert read_json(first) == {"a": None, "b": [1, 2.5]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(
    tmp_path: Path, value: float
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": value})
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert "not valid JSON" in one_line(caught.value, path)


def test_missing_json_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: not found; make it with `dvc repro`"):
        read_json(tmp_path / "a.json")


def test_saved_bytes_depend_on_the_content_and_not_on_the_name(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("mmap", [False, True])
def test_pickle_that_holds_code_is_refused_and_not_executed(tmp_path: Path, mmap: bool) -> None:
    path, trace = tmp_path / "a.pt", tmp_path / "trace"
    torch.save({"a": Bomb(trace)}, path)
    with pytest.raises(UserError) as caught:
        load_torch(path, mmap=mmap)
    assert "refused" in one_line(caught.value, path)
    assert not trace.exists()


def test_the_bomb_of_these_tests_would_go_off(tmp_path: Path) -> None:
    path, trace = tmp_path / "a.pt", tmp_path / "trace"
    torch.save({"a": Bomb(trace)}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_file_is_refused_in_one_line(tmp_path: Path, keep: float, mmap: bool) -> None:
    path = tmp_path / "a.pt"
    save_torch(path, torch.ones(50, 50))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(UserError) as caught:
        load_torch(path, mmap=mmap)
    assert "dvc repro" in one_line(caught.value, path)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("content", [b"hello", b"<html></html>", b"\x80\x02", b"\0" * 64])
def test_file_of_another_kind_is_refused_in_one_line(
    tmp_path: Path, content: bytes, mmap: bool
) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_torch(path, mmap=mmap)
    assert "dvc repro" in one_line(caught.value, path)


def test_missing_and_unreadable_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; make it with `dvc repro`"):
        load_torch(tmp_path / "a.pt")
    with pytest.raises(UserError, match="directory"):
        load_torch(tmp_path)


def test_copy_is_of_equal_bytes_and_refuses_a_missing_source(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "deep" / "b"
    source.write_bytes(b"\0\1\2")
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    for missing in (tmp_path / "c", tmp_path):
        with pytest.raises(UserError, match="not found; make it with `dvc repro`"):
            copy_file(missing, target)
    assert target.read_bytes() == source.read_bytes()

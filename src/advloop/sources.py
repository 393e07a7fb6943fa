"""Where images come from: a zip archive or a folder, with their groups and splits.

A manifest decides if there is one: ``manifest.csv`` (columns file, group, and
optionally split), or the embedded archive's ``index.json``. Without one, the
folder that holds an image is its group, and an image at the top its own.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from advloop.errors import UserError
from advloop.images import FORMATS

SPLITS = ("train", "val", "tune", "test")
MAX_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Item:
    """One image: its path inside the source, its group, and its split if the source has one."""

    file: str
    group: str
    split: str | None = None


def _hidden(file: str) -> bool:
    """True for what operating systems and editors leave behind."""
    return any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(file).parts) or not file


class Source(Protocol):
    """Files under one root, by relative POSIX path."""

    name: str

    def files(self) -> list[str]: ...

    def read(self, file: str) -> bytes: ...


class FolderSource:
    """A directory tree; links that leave it are refused."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    def files(self) -> list[str]:
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and not _hidden(path.relative_to(self.root).as_posix())
        )

    def read(self, file: str) -> bytes:
        path = self.root / file
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise UserError(f"{path}: leads out of {self.root}; copy the file into the folder")
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); fix or remove it"
            ) from None


class ArchiveSource:
    """A zip archive with one top folder or none; members are read, never extracted."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path}: not a readable zip archive ({error}); replace it") from None
        names = [n for n in self._zip.namelist() if not n.endswith("/") and not _hidden(n)]
        tops = {PurePosixPath(n).parts[0] for n in names}
        single = len(tops) == 1 and all("/" in n for n in names)
        self._prefix = f"{tops.pop()}/" if single else ""
        self._names = sorted(n.removeprefix(self._prefix) for n in names)

    def files(self) -> list[str]:
        return self._names

    def read(self, file: str) -> bytes:
        member = self._prefix + file
        try:
            if self._zip.getinfo(member).file_size > MAX_FILE_BYTES:
                raise UserError(f"{self.path}: {file} is larger than 512 MiB; remove it")
            return self._zip.read(member)
        except (KeyError, zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
            raise UserError(f"{self.path}: {file} cannot be read ({error}); replace it") from None


def open_source(path: Path) -> Source:
    """The source at ``path``; UserError if there is none."""
    if path.is_dir():
        return FolderSource(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        return ArchiveSource(path)
    raise UserError(
        f"data.source={path}: neither a folder nor a .zip archive that exists; "
        "set data.source in conf/config.yaml"
    )


def list_items(source: Source) -> list[Item]:
    """Every image of the source, sorted by file; UserError if there are none."""
    files = source.files()
    if "manifest.csv" in files:
        items = _from_csv(source, source.read("manifest.csv"))
    elif "index.json" in files:
        items = _from_index(source, source.read("index.json"))
    else:
        images = [f for f in files if PurePosixPath(f).suffix.lower() in FORMATS]
        items = [Item(f, _folder_group(f)) for f in images]
    if not items:
        raise UserError(f"{source.name}: holds no image ({', '.join(FORMATS)}); add some")
    known = set(files)
    seen: set[str] = set()
    for item in items:
        shown = item.file if item.file.isprintable() else repr(item.file)
        if item.file not in known:
            raise UserError(f"{source.name}: the manifest names {shown}, which is not there")
        if item.file in seen:
            raise UserError(f"{source.name}: the manifest names {shown} twice")
        seen.add(item.file)
    return sorted(items, key=lambda item: item.file)


def _folder_group(file: str) -> str:
    parent = PurePosixPath(file).parent.as_posix()
    return file if parent == "." else parent


def _checked(where: str, file: object, group: object, split: object) -> Item:
    if not isinstance(file, str) or not file:
        raise UserError(f"{where}: file is empty; name an image")
    if not isinstance(group, str) or not group:
        raise UserError(f"{where}: group of {file} is empty; name one")
    if split is not None and split not in SPLITS:
        raise UserError(f"{where}: split={split} of {file} must be train, val or test")
    return Item(file, group, str(split) if split is not None else None)


def _from_csv(source: Source, content: bytes) -> list[Item]:
    where = f"{source.name}/manifest.csv"
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        columns = rows.fieldnames or []
        for column in ("file", "group"):
            if column not in columns:
                raise UserError(f"{where}: column {column} is missing; add it to the first line")
        return [
            _checked(where, row["file"], row["group"], row.get("split") or None) for row in rows
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: not a UTF-8 CSV file ({error}); save it as one") from None


def _from_index(source: Source, content: bytes) -> list[Item]:
    where = f"{source.name}/index.json"
    try:
        rows: list[dict[str, Any]] = json.loads(content)
        return [
            _checked(where, row["file"], f"{row['wad']}_{row['map']}", row.get("split"))
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: not a list of {{file, wad, map, split}} ({error})") from None

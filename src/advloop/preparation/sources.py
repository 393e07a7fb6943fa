"""Where images come from: a zip archive or a folder, with their groups and splits.

A manifest decides if there is one: ``manifest.csv`` (columns file, group, and
optionally split), or the embedded archive's ``index.json``. Without one, the
folder that holds an image is its group, and an image at the top its own.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Protocol

from advloop.core.errors import UNPRINTABLE, UserError
from advloop.manifest import SPLITS
from advloop.preparation.folder_names import folder_class, folder_group, require_two
from advloop.preparation.images import FORMATS

MAX_FILE_BYTES = 512 * 2**20
# zipfile unpacks these piece by piece; of any other method it holds all that comes out.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Item:
    """One image: its path inside the source, its group, its split if the source has one.

    label: the name of its class, None where images have none.
    """

    file: str
    group: str
    split: str | None = None
    label: str | None = None


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
        """All but hidden ones. What is no file, a dangling link say, fails when it is read."""

        def refuse(error: OSError) -> NoReturn:  # os.walk would leave the folder out
            raise UserError(
                f"{error.filename}: cannot be read ({error.strerror}); fix or remove it"
            ) from None

        found: list[str] = []
        for place, folders, files in os.walk(self.root, onerror=refuse):
            folder = Path(place)
            folders[:] = [name for name in folders if not _hidden(name)]
            for name in folders:
                if (folder / name).is_symlink():
                    raise UserError(
                        f"{folder / name}: links to a folder, and is not followed; copy that "
                        "folder here, or remove the link"
                    )
            found += [
                (folder / name).relative_to(self.root).as_posix()
                for name in files
                if not _hidden(name)
            ]
        return sorted(found)

    def read(self, file: str) -> bytes:
        path = self.root / file
        try:
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise UserError(f"{path}: leads out of {self.root}; copy the file into the folder")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
                raise UserError(f"{path}: is no regular file; remove it")
            if status.st_size > MAX_FILE_BYTES:
                raise UserError(f"{path}: is larger than 512 MiB; remove it")
            return path.read_bytes()
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read ({reason}); fix or remove it") from None


class ArchiveSource:
    """A zip archive with one top folder or none; members are read, never extracted."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory can fail in any way
            raise UserError(f"{path}: not a readable zip archive ({error}); replace it") from None
        for name in self._zip.namelist():
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise UserError(f"{path}: {name} leads out of the archive; pack it anew")
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
            info = self._zip.getinfo(member)
            if info.file_size > MAX_FILE_BYTES:
                raise UserError(f"{self.path}: {file} is larger than 512 MiB; remove it")
            if info.compress_type not in METHODS:
                raise UserError(f"{self.path}: {file} must be packed by deflate; pack it anew")
            with self._zip.open(info) as packed:
                # a size: without one, zipfile unpacks all there is, whatever info says
                return packed.read(info.file_size + 1)
        except UserError:
            raise
        except Exception as error:  # a damaged member can fail in any way
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.path}: {file} cannot be read ({reason}); replace it") from None


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


def list_items(source: Source, classes: str = "none") -> list[Item]:
    """Every image of the source, sorted by file; UserError if there are none.

    A manifest is believed whole or not at all: a row that is wrong is an error, even where
    bad images are skipped. classes: where they stand, see DataParams.
    """
    files, labelled = source.files(), classes == "manifest"
    if "manifest.csv" in files:
        where = f"{source.name}/manifest.csv"
        items = _from_csv(where, source.read("manifest.csv"), labelled)
    elif "index.json" in files:
        where = f"{source.name}/index.json"
        items = _from_index(where, source.read("index.json"), labelled)
    else:
        where = source.name
        images = [f for f in files if PurePosixPath(f).suffix.lower() in FORMATS]
        items = [Item(f, folder_group(f, classes == "folders")) for f in images]
        if labelled:
            raise UserError(f"{where}: data.classes=manifest, but it holds no manifest.csv; add it")
    if not items:
        raise UserError(f"{where}: holds no image ({', '.join(FORMATS)}); add some")
    known = set(files)
    for item in items:
        if item.file not in known:
            raise UserError(
                f"{where}: names {item.file}, which is not there; correct or remove the row"
            )
    file, count = Counter(item.file for item in items).most_common(1)[0]
    if count > 1:
        raise UserError(f"{where}: holds {file} twice; keep one")
    if classes == "folders":
        items = [replace(item, label=folder_class(where, item.file)) for item in items]
    if classes != "none":
        require_two(where, classes, {str(item.label) for item in items})
    return sorted(items, key=lambda item: item.file)


def _checked(
    where: str, file: object, group: object, split: object, label: object, labelled: bool
) -> Item:
    if not isinstance(file, str) or not file:
        raise UserError(f"{where}: file is empty; name an image")
    if not isinstance(group, str) or not group:
        raise UserError(f"{where}: group of {file} is empty; name one")
    if UNPRINTABLE.search(group):
        raise UserError(f"{where}: group {group} holds a control character; rename it")
    if split is not None and split not in SPLITS:
        raise UserError(
            f"{where}: split={split} of {file} must be train, val, tune or test; correct it"
        )
    if labelled and (not isinstance(label, str) or not label or UNPRINTABLE.search(label)):
        raise UserError(
            f"{where}: class of {file} is {label!r}; name one, or set data.classes=none"
        )
    given = str(split) if split is not None else None
    return Item(file, group, given, str(label) if labelled else None)


def _from_csv(where: str, content: bytes, labelled: bool) -> list[Item]:
    items = []
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        columns = rows.fieldnames or []
        for column in ("file", "group", *["class"] * labelled):
            if column not in columns:
                raise UserError(f"{where}: column {column} is missing; add it to the first line")
        for row in rows:
            split, label = row.get("split") or None, row.get("class")
            items.append(_checked(where, row["file"], row["group"], split, label, labelled))
            if any(row.get(None, ())):  # DictReader's key of the rest
                raise UserError(
                    f"{where}: the row of {row['file']} has more cells than columns; quote names "
                    "that hold a comma"
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: not a UTF-8 CSV file ({error}); save it as one") from None
    return items


def _from_index(where: str, content: bytes, labelled: bool) -> list[Item]:
    try:
        rows: list[dict[str, Any]] = json.loads(content)
        return [
            _checked(
                where,
                row["file"],
                f"{row['wad']}_{row['map']}",
                row.get("split"),
                row.get("class"),
                labelled,
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{where}: not a list of {{file, wad, map, split}} ({error}); correct it"
        ) from None

"""The files of an image source: a folder or a zip archive, which strangers may have made.

Nothing is extracted, nothing outside the source is read, and no file is read without a limit.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from advloop.core.errors import UserError
from advloop.data.names import clean

MAX_FILE_BYTES = 512 * 2**20
# zipfile unpacks these piece by piece; with any other method it holds the whole result in memory.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UTF8_NAME = 0x800  # the flag of a member whose name is UTF-8, not code page 437


class Source(Protocol):
    """Files under one root, by relative POSIX path. ``name`` is what messages call the source."""

    name: str

    def __hash__(self) -> int:
        """A source is the same as itself alone."""
        ...

    def files(self) -> list[str]:
        """All files but hidden ones, sorted; UserError if a folder cannot be listed."""
        ...

    def read(self, file: str, size: int = -1) -> bytes:
        """The first ``size`` bytes of a file, or all; UserError if it cannot be read."""
        ...


def open_source(
    path: Path, trusted: Callable[[Path], bool] = lambda _: False, key: str = "data.source"
) -> Source:
    """The source at ``path``; UserError if there is none.

    trusted: whether a file outside the folder, to which a link in it leads, may be read. key: what
    the user has set to the path.
    """
    if path.is_dir():
        return FolderSource(path, trusted)
    if path.suffix.lower() == ".zip" and path.is_file():
        return ArchiveSource(path)
    what = "neither a folder nor a .zip archive" if path.exists() else "does not exist"
    raise UserError(f"{key}={path}: {what}; name a folder of images, or a .zip archive of them")


def _hidden(file: str) -> bool:
    """True for what operating systems and editors leave behind."""
    return any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(file).parts) or not file


class FolderSource:
    """A directory tree. Links to files inside it or ``trusted`` are followed, others refused."""

    def __init__(self, root: Path, trusted: Callable[[Path], bool]) -> None:
        self.root, self.name, self.trusted = root, str(root), trusted
        self._files: list[str] | None = None

    def files(self) -> list[str]:
        """See ``Source``. Links and pipes are listed too, and judged by ``read``."""
        if self._files is None:
            self._files = self._find()
        return self._files

    def _find(self) -> list[str]:
        def refuse(error: OSError) -> NoReturn:  # os.walk would leave the folder out
            raise UserError(
                f"{error.filename}: cannot be read ({error.strerror}); fix or remove it"
            ) from None

        found: list[str] = []
        for parent, folders, files in os.walk(self.root, onerror=refuse):
            folder = Path(parent)
            folders[:] = [name for name in folders if not _hidden(name)]
            for name in folders:
                if (folder / name).is_symlink():
                    raise UserError(
                        f"{folder / name}: is a link to a folder, which is not followed; copy "
                        "that folder here, or remove the link"
                    )
            found += [
                (folder / name).relative_to(self.root).as_posix()
                for name in files
                if not _hidden(name)
            ]
        return sorted(found)

    def read(self, file: str, size: int = -1) -> bytes:
        path = self.root / file
        try:
            target = path.resolve()
            inside = target.is_relative_to(self.root.resolve())
            if not inside and not (path.is_symlink() and self.trusted(target)):
                raise UserError(
                    f"{path}: points outside {self.root}, and not into DVC's cache; copy the file "
                    "into the folder"
                )
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                raise UserError(f"{path}: is not a regular file; remove it")
            if status.st_size > MAX_FILE_BYTES:
                raise UserError(f"{path}: is larger than 512 MiB; remove it")
            with path.open("rb") as content:
                return content.read(size)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read ({reason}); fix or remove it") from None


class ArchiveSource:
    """A zip archive, whose members are read and never extracted.

    Paths are those that a system with ``/`` would have packed. If all members lie in one top
    folder, they start below it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory can fail in any way
            raise UserError(f"{path}: not a readable zip archive ({error}); replace it") from None
        members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            written = _written_name(info)
            name = clean(written)
            if name is None:
                raise UserError(f"{path}: {written} points outside the archive; repack it")
            if written.endswith(("/", "\\")) or _hidden(name):
                continue
            if name in members:
                raise UserError(f"{path}: holds {name} twice, as {written}; keep one")
            members[name] = info
        tops = {PurePosixPath(name).parts[0] for name in members}
        single = len(tops) == 1 and all("/" in name for name in members)
        prefix = f"{tops.pop()}/" if single else ""
        found = {name.removeprefix(prefix): info for name, info in members.items()}
        self._members = dict(sorted(found.items()))

    def files(self) -> list[str]:
        return list(self._members)

    def read(self, file: str, size: int = -1) -> bytes:
        try:
            info = self._members[file]
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(
                    f"{self.path}: {file} is a link, which is not followed; pack the file itself"
                )
            if info.file_size > MAX_FILE_BYTES:
                raise UserError(f"{self.path}: {file} is larger than 512 MiB; remove it")
            if info.compress_type not in METHODS:
                raise UserError(
                    f"{self.path}: {file} must be compressed with deflate; repack the archive"
                )
            with self._zip.open(info) as packed:
                # without a size, zipfile unpacks everything, whatever info says
                return packed.read(info.file_size + 1 if size < 0 else size)
        except UserError:
            raise
        except Exception as error:  # a damaged member can fail in any way
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.path}: {file} cannot be read ({reason}); replace it") from None


def _written_name(info: zipfile.ZipInfo) -> str:
    """A member's name as it was packed; macOS writes UTF-8 without saying so."""
    if info.flag_bits & UTF8_NAME:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename

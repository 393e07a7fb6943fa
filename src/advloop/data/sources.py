"""The files of an image source: a folder or a zip archive, which strangers may have made.

Nothing is extracted, nothing outside the source is read, and no file is read without a limit.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from advloop.core.errors import UserError

MAX_FILE_BYTES = 512 * 2**20
# zipfile unpacks these piece by piece; with any other method it holds the whole result in memory.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Source(Protocol):
    """Files under one root, by relative POSIX path. ``name`` is what messages call the source."""

    name: str

    def files(self) -> list[str]:
        """All files but hidden ones, sorted; UserError if a folder cannot be listed."""
        ...

    def read(self, file: str) -> bytes:
        """The content of a file; UserError that names it if it cannot be read."""
        ...


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


def _hidden(file: str) -> bool:
    """True for what operating systems and editors leave behind."""
    return any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(file).parts) or not file


class FolderSource:
    """A directory tree. Links to files inside it are followed; all others are refused."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    def files(self) -> list[str]:
        """See ``Source``. Links and pipes are listed too, and judged by ``read``."""

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

    def read(self, file: str) -> bytes:
        path = self.root / file
        try:
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise UserError(
                    f"{path}: points outside {self.root}; copy the file into the folder"
                )
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                raise UserError(f"{path}: is not a regular file; remove it")
            if status.st_size > MAX_FILE_BYTES:
                raise UserError(f"{path}: is larger than 512 MiB; remove it")
            return path.read_bytes()
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read ({reason}); fix or remove it") from None


class ArchiveSource:
    """A zip archive, whose members are read and never extracted.

    If all members lie in one top folder, paths start below it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory can fail in any way
            raise UserError(f"{path}: not a readable zip archive ({error}); replace it") from None
        for name in self._zip.namelist():
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise UserError(f"{path}: {name} points outside the archive; repack it")
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
                raise UserError(
                    f"{self.path}: {file} must be compressed with deflate; repack the archive"
                )
            with self._zip.open(info) as packed:
                # without a size, zipfile unpacks everything, whatever info says
                return packed.read(info.file_size + 1)
        except UserError:
            raise
        except Exception as error:  # a damaged member can fail in any way
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.path}: {file} cannot be read ({reason}); replace it") from None

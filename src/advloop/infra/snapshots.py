"""Snapshots of a running stage, from which a later process resumes after a crash.

No result depends on them. A snapshot holds all that the stage's loop needs to end with the bytes of
an uninterrupted run, and its folder is named by a fingerprint of everything that the result follows
from, so that no other computation can pick it up.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from advloop.core.distributed import barrier, broadcast_from_main
from advloop.core.files import load_torch, save_torch, sync_folder
from advloop.core.processes import is_main_process

Snapshot = dict[str, Any]
PREFIX = "snapshot-"
SHARE = 0.02  # of the run time that snapshots may cost


class Stateful(Protocol):
    """A network, an optimizer, a schedule."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def states(parts: Mapping[str, Stateful]) -> Snapshot:
    """The state dicts of ``parts``, by name."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(parts: Mapping[str, Stateful], snapshot: Snapshot) -> None:
    """Load what ``states`` returned into ``parts``."""
    for name, part in parts.items():
        part.load_state_dict(snapshot[name])


class Resume(Protocol):
    """What a loop sees of its snapshots."""

    def load(self) -> Snapshot | None: ...

    def offer(self, make: Callable[[], Snapshot]) -> None: ...

    def scratch(self, name: str, /) -> Path | None: ...


class NoResume:
    """For loops that always start at the beginning: loads nothing and writes nothing."""

    def load(self) -> Snapshot | None:
        return None

    def offer(self, make: Callable[[], Snapshot]) -> None:
        """Does not call ``make``."""

    def scratch(self, _: str) -> Path | None:
        return None


class Snapshots:
    """Snapshots in ``folder``, of which the latest counts.

    A snapshot is a folder that appears complete, by a rename. It holds ``state.pt`` and, in
    ``files``, hard links to what the stage has written to its ``outputs``. The stage replaces its
    files and never writes into them, so a link keeps the bytes it was made for.

    interval: least number of seconds between two snapshots; it grows if snapshots would cost more
    than SHARE of the time. 0 takes one whenever the loop offers one, whatever it costs.
    Several processes make the same progress: the main process takes the snapshots, and all
    processes load them.
    """

    def __init__(self, folder: Path, outputs: Sequence[Path], interval: float) -> None:
        self.folder, self.outputs, self.interval = folder, outputs, interval
        self._cost, self._since = 0.0, time.monotonic()

    @property
    def found(self) -> bool:
        """Whether there is a snapshot to resume from."""
        return bool(self._snapshots())

    def scratch(self, name: str) -> Path:
        """The path of a working file that survives a crash, as the snapshots do."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def load(self) -> Snapshot | None:
        """The latest snapshot, after putting the outputs back as they were; None without one.

        UserError if it is damaged.
        """
        latest = broadcast_from_main(self._latest())
        if latest < 0:
            return None
        found = self._path(latest)
        snapshot: Snapshot = load_torch(found / "state.pt")
        if is_main_process():
            for index, output in enumerate(self.outputs):
                _link_tree(found / "files" / str(index), output)
        barrier()  # the main process's next snapshot removes this one
        return snapshot

    def offer(self, make: Callable[[], Snapshot]) -> None:
        """Take a snapshot of ``make()`` if one is due."""
        if not is_main_process():
            return
        wanted = max(self.interval, self._cost / SHARE) if self.interval else 0.0
        if time.monotonic() - self._since >= wanted:
            self.take(make)

    def take(self, make: Callable[[], Snapshot]) -> None:
        """Take a snapshot now, then remove the earlier ones."""
        began = time.monotonic()
        before = self._snapshots()
        number = self._latest() + 1
        fresh = self._empty()
        save_torch(fresh / "state.pt", make())
        for index, output in enumerate(self.outputs):
            _link_tree(output, fresh / "files" / str(index))
        fresh.rename(self._path(number))
        sync_folder(self.folder)
        for old in before:
            self._remove(old)
        self._since = time.monotonic()
        self._cost = self._since - began

    def clear(self) -> None:
        """Remove everything: the stage has finished."""
        if is_main_process():
            for old in self._snapshots():
                self._remove(old)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _empty(self) -> Path:
        """Where a snapshot is made, or removed: a crash leaves no part of one in force."""
        place = self.folder / "unfinished"
        shutil.rmtree(place, ignore_errors=True)
        return place

    def _remove(self, old: Path) -> None:
        shutil.rmtree(old.rename(self._empty()))

    def _latest(self) -> int:
        """The number of the latest snapshot, or -1."""
        found = self._snapshots()
        return int(found[-1].name.removeprefix(PREFIX)) if found else -1

    def _path(self, number: int) -> Path:
        return self.folder / f"{PREFIX}{number:06d}"

    def _snapshots(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}*"))


class RowProgress:
    """How many rows of each of a stage's files are on disk."""

    def __init__(self, resume: Resume) -> None:
        self.resume = resume
        self.filled: Snapshot = resume.load() or {}

    def advance(self, name: str, filled: int, flush: Callable[[], None]) -> None:
        """Note that ``filled`` rows of file ``name`` are written; ``flush`` gets them on disk."""
        self.filled[name] = filled

        def make() -> Snapshot:
            flush()
            return self.filled

        self.resume.offer(make)


def _link_tree(source: Path, target: Path) -> None:
    """Make ``target`` the same tree or file as ``source``, with hard links if possible."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            if not entry.name.startswith("."):  # unfinished: see files.atomic_path
                _link_tree(entry, target / entry.name)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copyfile(source, target)


def fingerprint(facts: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """16 hexadecimal digits that identify plain ``facts`` and the contents of ``files``.

    A folder counts with all files in it. A file counts under its name in ``files`` and not under
    its path, so a copy of the project elsewhere has the same fingerprint. Missing files are
    allowed.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode())
    for name, given in sorted(files.items()):
        inside = sorted(given.rglob("*")) if given.is_dir() else [given]
        for path in inside:
            if path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                place = path.relative_to(given).as_posix()
                digest.update(f"\0{name}\0{place}\0{content}".encode())
    return digest.hexdigest()[:16]


def loaded_modules(root: Path, *folders: str) -> dict[str, Path]:
    """The source files that this process has imported from ``folders`` of ``root``, by path."""
    root = root.resolve()
    wanted = [root / folder for folder in folders]
    given = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = [Path(file) for file in given if file]
    # Thousands of files in some hundred folders: resolving a path asks the disk for each part.
    places = {folder: folder.resolve() for folder in {path.parent for path in paths}}
    ours = {k: v for k, v in places.items() if any(v.is_relative_to(one) for one in wanted)}
    files = (ours[path.parent] / path.name for path in paths if path.parent in ours)
    return {file.relative_to(root).as_posix(): file for file in files}

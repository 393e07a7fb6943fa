"""Snapshots of a stage's progress: what a later process needs to go on to the same bytes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from advloop.core.io import load_torch, save_torch, sync_folder
from advloop.core.leader import leads
from advloop.core.ranks import agree, barrier

Content = dict[str, Any]
PREFIX = "snapshot-"
SHARE = 0.02  # of the time between two snapshots that the earlier one may have cost


class Stateful(Protocol):
    """A network, an optimizer, a schedule."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def states(parts: Mapping[str, Stateful]) -> Content:
    return {name: part.state_dict() for name, part in parts.items()}


def restore(parts: Mapping[str, Stateful], content: Content) -> None:
    for name, part in parts.items():
        part.load_state_dict(content[name])


class Resume(Protocol):
    """What a loop needs of it: where it stopped, and a place to say where it is."""

    def load(self) -> Content | None: ...

    def offer(self, make: Callable[[], Content]) -> None: ...

    def scratch(self, name: str, /) -> Path | None: ...


class Never:
    """No resume: nothing to go on from, and nothing is written."""

    def load(self) -> Content | None:
        return None

    def offer(self, make: Callable[[], Content]) -> None:
        """Costs nothing: ``make`` is not called."""

    def scratch(self, _: str) -> Path | None:
        return None


class Snapshots:
    """Snapshots in ``folder``, the latest of which counts: numbers, and links to ``outputs``.

    A snapshot is a folder that a rename makes whole: ``state.pt``, and in ``files`` hard links to
    all that the stage has written to its outputs. What the stage writes later takes the place
    of a file and never its bytes, so that a link keeps what it was. ``interval``: seconds that
    lie between two snapshots at least; more where that would cost over SHARE of the time. 0
    asks for one at every occasion, whatever it costs. Of several processes, whose progress is
    the same, the leader takes them and all load them.
    """

    def __init__(self, folder: Path, outputs: Sequence[Path], interval: float) -> None:
        self.folder, self.outputs, self.interval = folder, outputs, interval
        self._cost, self._since = 0.0, time.monotonic()

    @property
    def found(self) -> bool:
        """Whether there is a snapshot to go on from."""
        return bool(self._snapshots())

    def scratch(self, name: str) -> Path:
        """A file beside the snapshots, which survives the process as they do."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def load(self) -> Content | None:
        """What the latest snapshot holds, with the outputs put back as they were; or None.

        Raises UserError where it is damaged.
        """
        latest = agree(self._latest())
        if latest < 0:
            return None
        found = self._path(latest)
        content: Content = load_torch(found / "state.pt")
        if leads():
            for index, output in enumerate(self.outputs):
                _link_tree(found / "files" / str(index), output)
        barrier()  # the leader's next one takes this one's place
        return content

    def offer(self, make: Callable[[], Content]) -> None:
        """Take a snapshot of ``make()`` if it is time for one."""
        if not leads():
            return
        wanted = max(self.interval, self._cost / SHARE) if self.interval else 0.0
        if time.monotonic() - self._since >= wanted:
            self.take(make)

    def take(self, make: Callable[[], Content]) -> None:
        """Take a snapshot now; the ones before it go when it is whole."""
        began = time.monotonic()
        before = self._snapshots()
        number = self._latest() + 1
        fresh = self.folder / "unfinished"
        shutil.rmtree(fresh, ignore_errors=True)
        save_torch(fresh / "state.pt", make())
        for index, output in enumerate(self.outputs):
            _link_tree(output, fresh / "files" / str(index))
        fresh.rename(self._path(number))
        sync_folder(self.folder)
        for old in before:
            shutil.rmtree(old)
        self._since = time.monotonic()
        self._cost = self._since - began

    def clear(self) -> None:
        """Remove all of it: the stage has finished."""
        if leads():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _latest(self) -> int:
        """The number of the latest snapshot, -1 without any."""
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
        self.filled: Content = resume.load() or {}

    def advance(self, name: str, filled: int, flush: Callable[[], None]) -> None:
        """``filled`` rows of file ``name`` are written; flush makes sure of them."""
        self.filled[name] = filled

        def content() -> Content:
            flush()
            return self.filled

        self.resume.offer(content)


def _link_tree(source: Path, target: Path) -> None:
    """``target`` as the tree or file ``source``, by hard links, or copies where none can be."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            if not entry.name.startswith("."):  # half-written: see io.atomic_path
                _link_tree(entry, target / entry.name)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copyfile(source, target)

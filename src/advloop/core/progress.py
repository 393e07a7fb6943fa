"""One progress bar a stage with the time left, on a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from advloop.core.leader import leads

T = TypeVar("T")
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"

# Its own is a semaphore of the system, which a killed process leaves behind, with a warning.
tqdm.set_lock(threading.RLock())


class Bar:
    """What wraps a loop; see ``bar``."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total = description, total
        self._meter: Any = None  # made by the first loop: an empty bar says nothing

    def __call__(self, items: Iterable[T], each: int = 1) -> Iterator[T]:
        if self._meter is None:
            size = len(items) * each if isinstance(items, Sized) else None
            self._meter = tqdm(
                desc=self.description,
                total=self.total or size,
                disable=not (sys.stderr.isatty() and leads()),
                dynamic_ncols=True,
                bar_format=FORMAT,
            )
        complete = False
        try:
            for item in items:
                yield item
                self._meter.update(each)
            complete = True
        finally:  # of a loop that was left early: what is printed next, an error, starts a line
            if not complete or self.total is None or self._meter.n >= self.total:
                self._meter.close()


def bar(description: str, total: int | None = None) -> Bar:
    """What wraps the loops of a stage in one progress bar: not in a file or a pipe.

    total: the size of all loops together, where there are several. A loop's items count ``each``.
    Of several processes the leader shows its own.
    """
    return Bar(description, total)


def say(text: str, file: TextIO | None = None) -> None:
    """Print lines above the bar that is being drawn; file: standard output where None."""
    with tqdm.external_write_mode(file):
        print(text, file=file, flush=True)

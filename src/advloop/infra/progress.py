"""One progress bar per stage with the time left, on a terminal only.

No result depends on it: a bar passes on the items of a loop as they are, and writes to the
terminal alone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import nullcontext
from functools import cache
from typing import Any, TextIO, TypeVar

from advloop.core.processes import is_main_process

T = TypeVar("T")
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"


class Bar:
    """A progress bar that wraps one loop or several; made by ``bar``."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total = description, total
        self._meter: Any = None  # made by the first loop, so that no empty bar is printed

    def __call__(self, items: Iterable[T], each: int = 1) -> Iterator[T]:
        """The items as they are; each advances the bar by ``each``."""
        if not (sys.stderr.isatty() and is_main_process()):
            yield from items
            return
        if self._meter is None:
            size = len(items) * each if isinstance(items, Sized) else None
            self._meter = _tqdm()(
                desc=self.description,
                total=self.total or size,
                dynamic_ncols=True,
                bar_format=FORMAT,
            )
        complete = False
        try:
            for item in items:
                yield item
                self._meter.update(each)
            complete = True
        finally:  # after an early exit too, so that an error message starts on a line of its own
            if not complete or self.total is None or self._meter.n >= self.total:
                self._meter.close()


def bar(description: str, total: int | None = None) -> Bar:
    """A progress bar for the loops of a stage, silent in a file or a pipe.

    total: the size of all loops together, if there are several; None takes the first loop's size.
    If several processes share the stage, only the main process draws its bar.
    """
    return Bar(description, total)


def say(text: str, file: TextIO | None = None) -> None:
    """Print lines above the current bar, to ``file`` or standard output."""
    with _tqdm().external_write_mode(file) if sys.stderr.isatty() else nullcontext():
        print(text, file=file, flush=True)


@cache
def _tqdm() -> Any:
    """tqdm, imported where a bar is drawn: the import is a tenth of a light stage's start."""
    from tqdm import tqdm

    # Its default lock is a system semaphore, which a killed process leaks with a warning.
    tqdm.set_lock(threading.RLock())
    return tqdm

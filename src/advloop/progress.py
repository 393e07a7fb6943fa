"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from tqdm import tqdm

from advloop.leader import leads

T = TypeVar("T")


def bar(description: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """What wraps a loop in a progress bar: on a terminal only, not in a file or a pipe.

    Of several processes the leader shows its own.
    """

    def wrap(items: Iterable[T]) -> Iterable[T]:
        silent = not (sys.stderr.isatty() and leads())
        return tqdm(items, desc=description, disable=silent, dynamic_ncols=True)

    return wrap

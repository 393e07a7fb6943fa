"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(description: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """What wraps a loop in a progress bar: on a terminal only, not in a file or a pipe."""

    def wrap(items: Iterable[T]) -> Iterable[T]:
        return tqdm(items, desc=description, disable=not sys.stderr.isatty(), dynamic_ncols=True)

    return wrap

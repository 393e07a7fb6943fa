"""Make the next batch while the device works on this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, each made in a thread while the one before is used.

    Draws of random streams that ``items`` alone uses stay as they are. What making one raises
    comes out where it would have been yielded.
    """
    source, end = iter(items), object()

    def following() -> object:
        return next(source, end)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(following)
        while (item := pending.result()) is not end:
            pending = pool.submit(following)
            yield item  # type: ignore[misc]  # an Item, as it is not ``end``


def to_device(tensor: torch.Tensor, where: torch.device) -> torch.Tensor:
    """Copy to a GPU without waiting for it; elsewhere ``tensor.to(where)``."""
    if where.type != "cuda":
        return tensor.to(where)
    return tensor.pin_memory().to(where, non_blocking=True)

"""Prepare the next batch while the device computes on the current one.

No result depends on it: the items and their order are those of a plain loop, and a copy to the GPU
has the same values whether or not anyone waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order; a thread makes each one while the previous is in use.

    The thread runs ahead by one item, so ``items`` must have its random streams to itself. An
    exception in ``items`` is raised where its item would have come.
    """
    source, end = iter(items), object()

    def next_item() -> object:
        return next(source, end)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next_item)
        while (item := pending.result()) is not end:
            pending = pool.submit(next_item)
            yield item  # type: ignore[misc]  # an Item, since it is not ``end``


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor.to(device)``; to a GPU the copy overlaps with what the GPU is computing."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

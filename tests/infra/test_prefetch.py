"""Prefetched items are those of a plain loop, one of them ready before it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from advloop.infra.prefetch import prefetch, to_device


@pytest.mark.parametrize("count", [0, 1, 5])
def test_items_and_random_draws_are_those_of_a_plain_loop(count: int):
    def draws() -> Iterator[torch.Tensor]:
        stream = torch.Generator().manual_seed(0)
        for _ in range(count):
            yield torch.randn(100, generator=stream)

    pairs = list(zip(prefetch(draws()), draws(), strict=True))
    assert len(pairs) == count
    assert all(torch.equal(early, plain) for early, plain in pairs)


def test_exactly_one_item_is_made_while_another_is_in_use():
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for index, event in enumerate(made):
            event.set()
            yield index

    coming = prefetch(items())
    assert next(coming) == 0
    assert made[1].wait(timeout=10)
    assert not made[2].is_set()
    assert list(coming) == [1, 2]


def test_an_error_while_making_an_item_is_raised_in_its_place():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    coming = prefetch(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(coming)


class OnGPU:
    """A tensor of a GPU, as far as a machine without one can have it."""

    device = torch.device("cuda:0")

    def to(self, device):
        assert device == self.device
        return self

    def pin_memory(self):
        raise RuntimeError("only dense CPU tensors can be pinned")


def test_a_tensor_that_a_gpu_has_drawn_is_not_pinned():
    tensor = OnGPU()
    assert to_device(tensor, torch.device("cuda:0")) is tensor


def test_a_tensor_that_is_on_the_device_is_not_copied():
    tensor = torch.ones(3)
    assert to_device(tensor, torch.device("cpu")) is tensor

"""Batches made ahead are those that would have been made in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from advloop.prefetch import ahead, to_device


@pytest.mark.parametrize("count", [0, 1, 5])
def test_items_come_in_their_order(count):
    assert list(ahead(range(count))) == list(range(count))


def test_one_item_is_made_while_another_is_used_and_no_more():
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for index, event in enumerate(made):
            event.set()
            yield index

    coming = ahead(items())
    assert next(coming) == 0
    assert made[1].wait(timeout=10)
    assert not made[2].is_set()
    assert list(coming) == [1, 2]


def test_a_streams_draws_are_those_of_a_plain_loop():
    def draws() -> Iterator[torch.Tensor]:
        stream = torch.Generator().manual_seed(0)
        for _ in range(4):
            yield torch.randn(100, generator=stream)

    for early, plain in zip(ahead(draws()), draws(), strict=True):
        assert torch.equal(early, plain)


def test_an_error_while_making_one_comes_out_in_its_place():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(coming)


def test_a_tensor_that_is_there_is_not_copied():
    tensor = torch.ones(3)
    assert to_device(tensor, torch.device("cpu")) is tensor

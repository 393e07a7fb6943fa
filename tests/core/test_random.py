"""No draw depends on the order of others, and no row repeats before all are used."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations

import pytest
import torch

from advloop.core.random import (
    batches,
    drawn_on,
    generator,
    noise_for,
    seeded,
    shuffled_rows,
)


def draw(*key: int | str, seed: int = 0) -> torch.Tensor:
    return torch.rand(8, generator=generator(seed, *key))


def test_stream_depends_on_its_key_alone_and_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    first, second = draw("a", 1), draw("b", 2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(100)
    assert torch.equal(draw("b", 2), second)
    assert torch.equal(draw("a", 1), first)


def test_streams_of_different_keys_or_seeds_differ():
    keys: list[tuple[int | str, ...]] = [
        (), (0,), (1,), ("1",), ("a",), ("a", 1), ("a", "1"), ("a", 11), ("a", 1, 1), (1, "a"),
    ]  # fmt: skip
    for one, other in combinations(keys, 2):
        assert not torch.equal(draw(*one), draw(*other)), (one, other)
    assert not torch.equal(draw("a"), draw("a", seed=1))


def test_noise_of_a_sample_is_the_same_in_any_batch():
    noise = noise_for(range(4), (2, 3, 3), 0, "generate", 1)
    assert noise.shape == (4, 2, 3, 3)
    assert torch.equal(noise_for([3, 1], (2, 3, 3), 0, "generate", 1), noise[[3, 1]])


def test_noise_of_a_sample_is_the_same_from_any_number_of_threads(monkeypatch):
    alone = noise_for([5, 0, 9], (4, 4), 0, "generate")
    monkeypatch.setattr("advloop.core.random.LONG", 1)
    for threads in (1, 2, 8):  # of which three have a row
        monkeypatch.setattr("torch.get_num_threads", lambda count=threads: count)
        assert torch.equal(noise_for([5, 0, 9], (4, 4), 0, "generate"), alone)


def test_a_cpu_draws_from_the_stream_itself():
    stream = generator(0, "a")
    assert drawn_on(torch.device("cpu"), stream) is stream


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_from_a_stream_of_its_own_that_has_the_same_key():
    device = torch.device("cuda:0")

    def draw(*key: str) -> torch.Tensor:
        stream = drawn_on(device, generator(0, *key))
        return torch.randn(1000, generator=stream, device=stream.device)

    assert draw("a").device == device
    assert torch.equal(draw("a"), draw("a"))
    assert not torch.equal(draw("a"), draw("b"))


def test_seeded_repeats_its_draws_and_restores_the_global_stream_even_after_a_failure():
    before = torch.get_rng_state()
    draws = []
    for key in ("a", "a", "b"):
        with suppress(ValueError), seeded(0, key):
            draws.append(torch.rand(4))
            raise ValueError("stopped")
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (6, 1), (2, 10)])
def test_batches_cover_every_row_once_in_order(total: int, size: int):
    parts = batches(total, size)
    assert [row for part in parts for row in part] == list(range(total))
    assert all(0 < len(part) <= size for part in parts)


@pytest.mark.parametrize(("count", "total"), [(5, 5), (3, 5), (12, 5), (10, 5), (1, 1), (4, 1)])
def test_shuffled_rows_repeat_only_after_every_row_was_used(count: int, total: int):
    rows = shuffled_rows(count, total, torch.Generator().manual_seed(0))
    assert rows.shape == (count,)
    for block in rows.split(total):
        assert len(set(block.tolist())) == len(block)
        assert set(block.tolist()) <= set(range(total))

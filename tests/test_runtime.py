"""Random streams, modes and devices: no draw depends on the order of others."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.runtime import (
    autocast,
    batches,
    device,
    eval_mode,
    generator,
    seeded,
    shuffled_rows,
)


def draw(*key: int | str) -> torch.Tensor:
    return torch.rand(8, generator=generator(0, *key))


def test_stream_depends_on_its_key_and_not_on_the_order_of_draws() -> None:
    first, second = draw("a", 1), draw("b", 2)
    torch.rand(100)
    assert torch.equal(draw("b", 2), second)
    assert torch.equal(draw("a", 1), first)


def test_streams_of_different_keys_differ() -> None:
    keys: list[tuple[int | str, ...]] = [
        (), (0,), (1,), ("1",), ("a",), ("a", 1), ("a", "1"), ("a", 11), ("a", 1, 1), (1, "a"),
    ]  # fmt: skip
    for one, other in combinations(keys, 2):
        assert not torch.equal(draw(*one), draw(*other)), (one, other)


def test_streams_of_different_seeds_differ() -> None:
    one, other = (torch.rand(8, generator=generator(seed, "a")) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_generator_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    draw("a")
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_gives_the_same_draws_and_returns_the_global_stream() -> None:
    before = torch.get_rng_state()
    draws = []
    for key in ("a", "a", "b"):
        with seeded(0, key):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_returns_the_global_stream_after_a_failure() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="stopped"), seeded(0, "a"):
        raise ValueError(f"stopped after {torch.rand(1)}")
    assert torch.equal(torch.get_rng_state(), before)


def test_eval_mode_restores_the_mode_of_each_module() -> None:
    training, evaluating = nn.Dropout(), nn.Dropout().eval()
    with eval_mode(training, evaluating):
        assert not training.training
        assert not evaluating.training
        assert not torch.is_grad_enabled()
    assert training.training
    assert not evaluating.training
    assert torch.is_grad_enabled()


def test_eval_mode_restores_after_a_failure() -> None:
    module = nn.Dropout()
    with pytest.raises(RuntimeError, match="stopped"), eval_mode(module):
        raise RuntimeError("stopped")
    assert module.training
    assert torch.is_grad_enabled()


def test_eval_mode_leaves_a_frozen_part_of_a_training_module_frozen() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[1].eval()
    with eval_mode(module):
        assert not any(part.training for part in module)
    assert [part.training for part in module] == [True, False]


@pytest.mark.parametrize("name", ["banana", "cuda:99", "gpu", " ", "cpu:x"])
def test_device_that_is_none_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ADVLOOP_DEVICE", name)
    with pytest.raises(UserError) as caught:
        device()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert f"ADVLOOP_DEVICE={name}" in message
    assert "unset it" in message


def test_device_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVLOOP_DEVICE", "cpu")
    assert device() == torch.device("cpu")


@pytest.mark.parametrize(("available", "expected"), [(False, "cpu"), (True, "cuda:0")])
def test_device_is_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, available: bool, expected: str
) -> None:
    monkeypatch.setenv("ADVLOOP_DEVICE", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    assert device() == torch.device(expected)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_decides_what_a_matrix_product_is_computed_in(
    precision: str, dtype: torch.dtype
) -> None:
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (6, 1), (2, 10)])
def test_batches_cover_every_row_once_in_order(total: int, size: int) -> None:
    parts = batches(total, size)
    assert [row for part in parts for row in part] == list(range(total))
    assert all(0 < len(part) <= size for part in parts)


@pytest.mark.parametrize(("count", "total"), [(5, 5), (3, 5), (12, 5), (10, 5), (1, 1), (4, 1)])
def test_shuffled_rows_repeat_only_after_every_row_was_used(count: int, total: int) -> None:
    rows = shuffled_rows(count, total, torch.Generator().manual_seed(0))
    assert rows.shape == (count,)
    for start in range(0, count, total):
        block = rows[start : start + total].tolist()
        assert len(set(block)) == len(block)
        assert set(block) <= set(range(total))

"""The device comes from the machine or ADVLOOP_DEVICE; modes and precision end with their block."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn

from advloop.core.device import autocast, eval_mode, pick_device
from advloop.core.errors import UserError


@pytest.mark.parametrize("name", ["banana", "cuda:99", "gpu", " ", "cpu:x"])
def test_unusable_device_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("ADVLOOP_DEVICE", name)
    with pytest.raises(UserError) as caught:
        pick_device()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"ADVLOOP_DEVICE={name}: not usable (")
    assert message.endswith("; unset it")


@pytest.mark.parametrize(
    ("named", "available", "local_rank", "expected"),
    [
        ("cpu", True, "0", "cpu"),
        ("cuda:1", True, "0", "cuda:1"),
        ("", False, "0", "cpu"),
        ("", True, "0", "cuda:0"),
        ("", True, "3", "cuda:3"),
    ],
)
def test_device_is_the_named_one_or_else_the_processs_own_gpu_or_else_the_cpu(
    monkeypatch: pytest.MonkeyPatch, named: str, available: bool, local_rank: str, expected: str
):
    monkeypatch.setenv("ADVLOOP_DEVICE", named)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    assert pick_device() == torch.device(expected)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_a_matrix_product(precision: str, dtype: torch.dtype):
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_eval_mode_restores_every_submodule_even_after_a_failure():
    training, evaluating = nn.Sequential(nn.Dropout(), nn.Dropout().eval()), nn.Dropout().eval()
    with suppress(RuntimeError), eval_mode(training, evaluating):
        assert not any(part.training for part in (training, *training, evaluating))
        assert not torch.is_grad_enabled()
        raise RuntimeError("stopped")
    assert [part.training for part in (training, *training)] == [True, True, False]
    assert not evaluating.training
    assert torch.is_grad_enabled()

"""The tables of docs/scaling.md are those of the command, and its arithmetic is sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cost_model import Machine, Work, all_reduce_seconds, step_seconds, tables

DOC = Path(__file__).resolve().parents[1] / "docs/scaling.md"
WORK = Work(
    parameters=50_000_000,
    forward=5e9,
    disc_parameters=1,
    disc_forward=1.0,
    latent=16 * 32 * 32,
    image=1,
)


def test_the_document_shows_what_the_command_prints():
    text = DOC.read_text()
    shown = text.split("<!-- cost_model: begin -->")[1].split("<!-- cost_model: end -->")[0]
    assert shown.strip() == tables().strip()


def test_a_ring_of_two_sends_the_whole_once_and_one_gpu_sends_nothing():
    machine = Machine()
    assert all_reduce_seconds(1e9, 2, machine) == pytest.approx(1e9 / machine.inside)
    assert all_reduce_seconds(1e9, 1, machine) == 0


def test_a_long_backward_pass_hides_all_but_the_last_bucket():
    machine = Machine()
    alone, eight = (step_seconds(WORK, 10_000, gpus, machine) for gpus in (1, 8))
    assert eight - alone == pytest.approx(all_reduce_seconds(machine.bucket, 8, machine))


def test_without_a_backward_pass_the_whole_gradient_is_waited_for():
    machine = replace(Machine(), launch=0.0)
    size = 4.0 * WORK.parameters
    assert step_seconds(WORK, 0, 64, machine) == pytest.approx(
        all_reduce_seconds(size, 64, machine)
    )

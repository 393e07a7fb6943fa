"""Gradient checkpointing: the same training with fewer activations in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DModel
from refusal import refusal
from small_diffusion import equal, make_criterion, make_setup, run
from small_opponent import make_opponent, play_setup
from tiny_unet import CONFIG

from advloop.core.device import spare_memory
from advloop.models.denoiser import build_denoiser
from advloop.training.batches import Side
from advloop.training.diffusion import Setup
from step_memory import kept

VARIABLE = "ADVLOOP_GRADIENT_CHECKPOINTING"
ATTENTION = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "attention_head_dim": 4}


def plain() -> Setup:
    return make_setup(epochs=1)


def with_discriminator() -> Setup:
    return make_setup(make_criterion("seed"), epochs=1)


def through_the_sampler() -> Setup:
    opponent = make_opponent(num_inference_steps=2)
    return play_setup(opponent, epochs=1, samples_per_epoch=8)


def with_classes() -> Setup:
    setup = make_setup(epochs=1)
    train, val = (
        Side(side.latents, torch.arange(len(side)) % 3) for side in (setup.train, setup.val)
    )
    return replace(setup, train=train, val=val)


CASES = {
    "dropout and attention": (plain, ATTENTION | {"dropout": 0.3}),
    "classes": (with_classes, {"num_class_embeds": 3}),
    "discriminator": (with_discriminator, {}),
    "sampler": (through_the_sampler, {}),
    "sampler that recomputes its steps, too": (through_the_sampler, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_recomputes_activations_ends_with_the_same_weights(case, monkeypatch):
    make, changes = CASES[case]
    monkeypatch.setattr("advloop.diffusion.unrolled.KEPT", 0 if "recomputes" in case else 1 << 20)
    found = []
    for value in ("0", "1"):
        monkeypatch.setenv(VARIABLE, value)
        denoiser = build_denoiser(CONFIG | changes, seed=0)
        found.append(run(make(), denoiser))
        assert denoiser.network.is_gradient_checkpointing == (value == "1")
    (rows, models, averages), (other_rows, other_models, other_averages) = found
    assert other_rows == rows
    for one, other in zip(models + averages, other_models + other_averages, strict=True):
        assert equal(one, other)


def test_it_keeps_fewer_activations(monkeypatch):
    denoiser = build_denoiser(CONFIG | {"layers_per_block": 2}, seed=0)
    inputs = torch.zeros(8, 4, 8, 8), torch.zeros(8, dtype=torch.long)
    before = kept(denoiser, *inputs)
    spare_memory(denoiser)
    assert kept(denoiser, *inputs) == before, "it is off by default"
    monkeypatch.setenv(VARIABLE, "1")
    spare_memory(denoiser)
    assert 0 < kept(denoiser, *inputs) < 0.5 * before


@pytest.mark.parametrize("value", ["yes", "2", " 1"])
def test_another_value_is_refused(value, monkeypatch):
    monkeypatch.setenv(VARIABLE, value)
    message = refusal(spare_memory, build_denoiser(CONFIG, seed=0))
    assert message == f"{VARIABLE}={value}: must be 0 or 1; unset it"


def test_a_network_that_cannot_do_it_is_refused(monkeypatch):
    class Other(UNet2DModel):
        _supports_gradient_checkpointing = False

    monkeypatch.setenv(VARIABLE, "1")
    message = refusal(spare_memory, torch.nn.Sequential(Other(**CONFIG)))
    assert message == f"{VARIABLE}=1: Other cannot do it; unset it"

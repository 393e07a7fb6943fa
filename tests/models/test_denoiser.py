"""The denoising network and its checkpoints: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from refusal import refusal
from small_params import UNET

from advloop.models.denoiser import (
    build_unet,
    check_classes,
    check_latents,
    frozen_copy,
    load_checkpoint,
    save_checkpoint,
    unet_config,
)
from advloop.params.diffusion import UNetParams

SHAPE = (4, 8, 8)
CONFIG = unet_config(UNET, channels=4, size=8)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_seed_alone_decides_the_weights_and_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    first = build_unet(CONFIG, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert equal(first, build_unet(CONFIG, seed=0))
    assert not equal(first, build_unet(CONFIG, seed=1))


def test_attention_is_at_the_levels_that_were_asked_for():
    params = UNetParams(
        block_out_channels=[8, 8, 16], layers_per_block=1, attention_levels=[2], norm_num_groups=4
    )
    unet = build_unet(unet_config(params, channels=4, size=8), seed=0).unet
    assert [hasattr(block, "attentions") for block in unet.down_blocks] == [False, False, True]
    assert [hasattr(block, "attentions") for block in unet.up_blocks] == [True, False, False]


def test_a_checkpoint_gives_back_the_ema_weights_and_keeps_the_raw_ones_if_it_has_them(tmp_path):
    ema, model = build_unet(CONFIG, seed=0), build_unet(CONFIG, seed=1)
    save_checkpoint(tmp_path / "latest.pt", ema, model)
    save_checkpoint(tmp_path / "best.pt", ema)
    for name in ("latest.pt", "best.pt"):
        loaded = load_checkpoint(tmp_path / name)
        assert equal(loaded, ema)
        assert loaded.config == ema.config
        assert loaded.latent_shape == SHAPE
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    raw = model.unet.state_dict()
    assert all(torch.equal(latest["model"][name], raw[name]) for name in raw)
    assert sorted(torch.load(tmp_path / "best.pt", weights_only=True)) == ["config", "ema"]


def test_equal_checkpoints_are_equal_bytes_whatever_the_file_is_called(tmp_path):
    save_checkpoint(tmp_path / "a.pt", build_unet(CONFIG, seed=0))
    save_checkpoint(tmp_path / "folder/another_and_longer_name.pt", build_unet(CONFIG, seed=0))
    save_checkpoint(tmp_path / "again.pt", load_checkpoint(tmp_path / "a.pt"))
    save_checkpoint(tmp_path / "other.pt", build_unet(CONFIG, seed=1))
    first = (tmp_path / "a.pt").read_bytes()
    assert (tmp_path / "folder/another_and_longer_name.pt").read_bytes() == first
    assert (tmp_path / "again.pt").read_bytes() == first
    assert (tmp_path / "other.pt").read_bytes() != first


def test_a_frozen_copy_takes_no_gradients_and_leaves_the_network_as_it_was():
    denoiser = build_unet(CONFIG, seed=0).train()
    copy = frozen_copy(denoiser)
    assert equal(copy, denoiser)
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert not any(module.training for module in copy.modules())
    assert all(parameter.requires_grad for parameter in denoiser.parameters())
    assert denoiser.training


WEIGHTS = build_unet(CONFIG, seed=0).unet.state_dict()
WITHOUT = {name: value for name, value in WEIGHTS.items() if name != "conv_out.bias"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"config": CONFIG, "ema": WITHOUT}, "conv_out.bias"),
        ({"config": {"no_such_argument": 1}, "ema": {}}, "no_such_argument"),
        ({"config": None, "ema": None}, ""),
        ({}, "config"),
        (["ema"], "it holds a list"),
        (7, "it holds a int"),
    ],
    ids=["a layer less", "argument", "nulls", "empty", "list", "number"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "a.pt")
    message = refusal(load_checkpoint, tmp_path / "a.pt")
    assert message.startswith(f"{tmp_path / 'a.pt'}: not a checkpoint that fits")
    assert says in message


def test_a_network_is_checked_against_the_latents_and_the_classes_of_the_run():
    path, denoiser = Path("model.pt"), build_unet(CONFIG | {"num_class_embeds": 2}, seed=0)
    check_latents(path, denoiser, SHAPE)
    check_classes(path, denoiser, 2)
    message = refusal(check_latents, path, denoiser, (4, 16, 16))
    assert message.startswith(
        "model.pt: denoises latents [4, 8, 8], but this run's are [4, 16, 16]"
    )
    message = refusal(check_classes, path, denoiser, 0)
    assert message.startswith("model.pt: knows 2 classes, but this run's images have 0")

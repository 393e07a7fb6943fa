"""Checkpoints and imported networks: what comes back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from advloop.core.errors import UserError
from advloop.params.diffusion import UNetParams
from advloop.unet import (
    Denoiser,
    build_unet,
    check_latents,
    import_unet,
    load_checkpoint,
    save_checkpoint,
    unet_config,
)

SHAPE = (4, 8, 8)


def config(**changes) -> dict:
    params = UNetParams(
        block_out_channels=[8, 16], layers_per_block=1, attention_levels=[], norm_num_groups=4
    )
    return unet_config(params, channels=4, size=8) | changes


def same_weights(one: Denoiser, other: Denoiser) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def probe(model: torch.nn.Module) -> torch.Tensor:
    noisy = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model.eval()(noisy, torch.tensor([3, 900]))
    return output if isinstance(output, torch.Tensor) else output.sample


def refusal(path: Path, action, *arguments) -> str:
    """The message of the UserError that ``action`` raises: one line that names ``path``."""
    with pytest.raises(UserError) as caught:
        action(path, *arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


def test_the_same_seed_builds_the_same_network_and_another_seed_another():
    assert same_weights(build_unet(config(), seed=0), build_unet(config(), seed=0))
    assert not same_weights(build_unet(config(), seed=0), build_unet(config(), seed=1))


def test_building_a_network_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    build_unet(config(), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_attention_stands_at_the_levels_that_were_asked_for():
    params = UNetParams(
        block_out_channels=[8, 8, 16], layers_per_block=1, attention_levels=[2], norm_num_groups=4
    )
    made = unet_config(params, channels=4, size=8)
    assert made["down_block_types"] == ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"]
    assert made["up_block_types"] == ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]
    unet = build_unet(made, seed=0).unet
    assert [hasattr(block, "attentions") for block in unet.down_blocks] == [False, False, True]
    assert [hasattr(block, "attentions") for block in unet.up_blocks] == [True, False, False]


def test_a_checkpoint_hands_on_the_ema_weights(tmp_path):
    ema, model = build_unet(config(), seed=0), build_unet(config(), seed=1)
    save_checkpoint(tmp_path / "latest.pt", ema, model)
    loaded = load_checkpoint(tmp_path / "latest.pt")
    assert same_weights(loaded, ema)
    assert not same_weights(loaded, model)
    assert loaded.config == ema.config
    assert loaded.latent_shape == SHAPE
    assert torch.equal(probe(loaded), probe(ema))


def test_a_checkpoint_carries_the_raw_weights_only_where_training_goes_on(tmp_path):
    ema, model = build_unet(config(), seed=0), build_unet(config(), seed=1)
    save_checkpoint(tmp_path / "latest.pt", ema, model)
    save_checkpoint(tmp_path / "best.pt", ema)
    latest = torch.load(tmp_path / "latest.pt", weights_only=True)
    raw = model.unet.state_dict()
    assert all(torch.equal(latest["model"][name], raw[name]) for name in raw)
    assert sorted(torch.load(tmp_path / "best.pt", weights_only=True)) == ["config", "ema"]


def test_equal_checkpoints_are_equal_bytes_whatever_the_file_is_called(tmp_path):
    for name in ("a.pt", "another_and_longer_name.pt", "folder/a.pt"):
        save_checkpoint(tmp_path / name, build_unet(config(), seed=0))
    save_checkpoint(tmp_path / "other.pt", build_unet(config(), seed=1))
    first = (tmp_path / "a.pt").read_bytes()
    assert (tmp_path / "another_and_longer_name.pt").read_bytes() == first
    assert (tmp_path / "folder/a.pt").read_bytes() == first
    assert (tmp_path / "other.pt").read_bytes() != first


def test_a_loaded_checkpoint_saves_to_the_same_bytes(tmp_path):
    save_checkpoint(tmp_path / "first.pt", build_unet(config(), seed=0))
    save_checkpoint(tmp_path / "second.pt", load_checkpoint(tmp_path / "first.pt"))
    assert (tmp_path / "second.pt").read_bytes() == (tmp_path / "first.pt").read_bytes()


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    weights = build_unet(config(), seed=0).unet.state_dict()
    weights.pop("conv_out.bias")
    torch.save({"config": config(), "ema": weights}, path)
    assert "conv_out.bias" in refusal(path, load_checkpoint)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"config": {"no_such_argument": 1}, "ema": {}},
        {"config": None, "ema": None},
        ["config", "ema"],
        torch.zeros(2, 4, 8, 8),
        7,
    ],
    ids=["empty", "config", "nulls", "list", "tensor", "number"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    refusal(path, load_checkpoint)


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, kept):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, build_unet(config(), seed=0))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refusal(path, load_checkpoint)


@pytest.mark.parametrize("content", [b"\n", b"version https://git-lfs", b"\x80\x02.", b"\xff" * 99])
def test_a_file_that_is_no_checkpoint_at_all_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    refusal(path, load_checkpoint)


def test_a_folder_in_place_of_a_checkpoint_is_refused(tmp_path):
    refusal(tmp_path, load_checkpoint)


def test_check_latents_accepts_the_shape_of_the_network_alone():
    denoiser = build_unet(config(), seed=0)
    check_latents(Path("model.pt"), denoiser, SHAPE)
    message = refusal(Path("model.pt"), check_latents, denoiser, (4, 16, 16))
    assert "[4, 8, 8]" in message
    assert "[4, 16, 16]" in message


@pytest.fixture
def saved(tmp_path) -> tuple[Path, UNet2DModel]:
    """A diffusers folder, and the network in it."""
    unet = build_unet(config(), seed=5).unet
    unet.save_pretrained(tmp_path / "unet")
    return tmp_path / "unet", unet


def test_an_imported_diffusers_folder_predicts_what_diffusers_predicts(saved):
    folder, unet = saved
    denoiser = import_unet(folder, SHAPE)
    assert denoiser.latent_shape == SHAPE
    torch.testing.assert_close(probe(denoiser), probe(unet), rtol=0, atol=1e-6)


def test_an_imported_network_survives_a_checkpoint(saved, tmp_path):
    denoiser = import_unet(saved[0], SHAPE)
    save_checkpoint(tmp_path / "base.pt", denoiser)
    assert torch.equal(probe(load_checkpoint(tmp_path / "base.pt")), probe(denoiser))


@pytest.mark.parametrize("shape", [(16, 8, 8), (4, 16, 16)])
def test_an_imported_network_for_other_latents_is_refused(saved, shape):
    assert str(list(shape)) in refusal(saved[0], import_unet, shape)


def test_an_imported_network_with_other_outputs_than_inputs_is_refused(tmp_path):
    UNet2DModel(**config(out_channels=8)).save_pretrained(tmp_path / "unet")
    assert "out_channels" in refusal(tmp_path / "unet", import_unet, SHAPE)


def test_a_network_whose_classes_are_no_numbers_is_refused(tmp_path):
    told = config(num_class_embeds=10, class_embed_type="timestep")
    UNet2DModel(**told).save_pretrained(tmp_path / "unet")
    assert "no numbers: timestep" in refusal(tmp_path / "unet", import_unet, SHAPE)


def test_a_missing_folder_is_refused(tmp_path):
    assert "base.pretrained" in refusal(tmp_path / "absent", import_unet, SHAPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [8, 32]},  # other shapes
        {"block_out_channels": [8, 16, 16]},  # more layers
        {"layers_per_block": 2},
        {"norm_num_groups": 3},  # does not divide the channels
        {"down_block_types": ["NoSuchBlock", "DownBlock2D"]},
    ],
    ids=["wider", "deeper", "more layers", "groups", "block"],
)
def test_a_folder_whose_weights_are_not_those_of_its_configuration_is_refused(saved, changes):
    folder, _ = saved
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refusal(folder, import_unet, SHAPE)

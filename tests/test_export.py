"""The exported model: what diffusers loads, and what this pipeline imports again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from tiny_unet import CONFIG

from advloop.errors import UserError
from advloop.export import export_unet
from advloop.model_folder import WEIGHTS
from advloop.unet import build_unet, import_unet, save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """EMA weights and raw ones that differ."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, build_unet(CONFIG, seed=0), build_unet(CONFIG, seed=1))
    return path


def test_export_is_what_diffusers_loads_with_the_ema_weights(checkpoint, tmp_path):
    export_unet(checkpoint, tmp_path / "model")
    loaded = UNet2DModel.from_pretrained(
        tmp_path / "model", local_files_only=True, use_safetensors=True
    )
    expected = build_unet(CONFIG, seed=0).unet.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_export_can_be_the_base_model_of_another_run(checkpoint, tmp_path):
    export_unet(checkpoint, tmp_path / "model")
    original = build_unet(CONFIG, seed=0)
    again = import_unet(tmp_path / "model", original.latent_shape)
    noisy, timesteps = torch.randn(2, *original.latent_shape), torch.tensor([3, 700])
    assert torch.equal(again.eval()(noisy, timesteps), original.eval()(noisy, timesteps))


def test_equal_checkpoints_give_equal_bytes(checkpoint, tmp_path):
    for name in ("one", "other"):
        export_unet(checkpoint, tmp_path / name)
    for file in ("config.json", WEIGHTS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_file_that_is_no_checkpoint_is_refused_and_leaves_no_folder(tmp_path):
    path = tmp_path / "latents.pt"
    torch.save(torch.zeros(2, 3), path)
    with pytest.raises(UserError, match=r"latents\.pt: not a checkpoint"):
        export_unet(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()

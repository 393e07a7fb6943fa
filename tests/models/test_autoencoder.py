"""Autoencoders in folders and files: what comes back, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO
from refusal import refusal
from safetensors.torch import load_file, save_file
from small_params import AUTOENCODER
from tiny_autoencoders import KINDS, PARAMS, autoencoder_params, tiny_autoencoder
from torch import nn

from advloop.models.autoencoder import (
    BY_CHANNEL,
    CLASS,
    SUPPORTED,
    build_autoencoder,
    check_autoencoder,
    import_autoencoder,
    load_autoencoder,
    read_scaling,
    save_autoencoder,
)
from advloop.models.codec import Codec, to_images
from advloop.models.folders import WEIGHTS
from advloop.models.patch_autoencoder import PatchAutoencoder

IMAGES = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_network_is_built_as_the_params_say():
    keys = {"latent_channels", "factor", "width", "encoder_blocks", "decoder_blocks"}
    assert build_autoencoder(PARAMS).config == {key: getattr(PARAMS, key) for key in keys}


def test_a_saved_autoencoder_comes_back_and_its_bytes_repeat(tmp_path):
    model = PatchAutoencoder(4, 4, 8, 1, 2)
    nn.init.normal_(model.decoder[-1].weight)
    save_autoencoder(tmp_path / "a", model)
    loaded = load_autoencoder(tmp_path / "a")
    assert isinstance(loaded, PatchAutoencoder)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    save_autoencoder(tmp_path / "b", loaded)
    assert {file.name for file in (tmp_path / "b").iterdir()} == {"config.json", WEIGHTS}
    for file in ("config.json", WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_these_tests_and_the_table_of_the_page_know_every_kind():
    assert set(KINDS) == {CLASS, *SUPPORTED}
    page = (REPO / "docs/your-own-data.md").read_text()
    section = page.split("### Autoencoders")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, re.M) == [*SUPPORTED, CLASS]


@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_of_every_kind_is_imported_with_its_scale_alone_or_in_a_pipeline(
    tmp_path, kind, capsys
):
    model = tiny_autoencoder(kind)
    if kind == CLASS:
        save_autoencoder(tmp_path / "vae", model, 0.75)
    else:  # as diffusers itself would
        model.register_to_config(scaling_factor=0.75)
        model.save_pretrained(tmp_path / "vae")
    for path in (tmp_path, tmp_path / "vae"):
        loaded, scale, shift = import_autoencoder(path, AUTOENCODER)
        check_autoencoder(path, loaded, AUTOENCODER, 16)
        assert type(loaded) is type(model)
        assert (scale, shift) == (0.75, 0.0)
        codec = Codec(loaded, scale, shift)
        latents = codec.encode(IMAGES)
        torch.testing.assert_close(latents, Codec(model).encode(IMAGES) * 0.75)
        with torch.no_grad():
            pixels = model.decode(latents / 0.75).sample
        assert np.array_equal(codec.decode(latents), to_images(pixels))
    save_autoencoder(tmp_path / "saved", loaded, scale, shift)
    assert import_autoencoder(tmp_path / "saved", AUTOENCODER)[1:] == (0.75, 0.0)
    assert capsys.readouterr() == ("", "")


MEAN, STD = [0.5, 0.0, -1.0, 0.25], [1.0, 2.0, 0.5, 4.0]


@pytest.mark.parametrize("kind", SUPPORTED)
@pytest.mark.parametrize("factor", [0.5, None])
def test_mean_and_deviation_of_each_channel_are_those_of_the_latents(tmp_path, kind, factor):
    model = tiny_autoencoder(kind)
    model.register_to_config(scaling_factor=factor, latents_mean=MEAN, latents_std=STD)
    model.save_pretrained(tmp_path / "theirs")
    loaded, scale, shift = import_autoencoder(tmp_path / "theirs", AUTOENCODER)
    used = factor or 1.0
    assert scale == tuple(used / one for one in STD)
    assert shift == tuple(MEAN)
    # diffusers' StableDiffusionXLPipeline
    encoded = Codec(model).encode(IMAGES)
    mean, std = (torch.tensor(numbers).view(1, 4, 1, 1) for numbers in (MEAN, STD))
    codec = Codec(loaded, scale, shift)
    latents = codec.encode(IMAGES)
    torch.testing.assert_close(latents, (encoded - mean) * used / std)
    with torch.no_grad():
        expected = to_images(model.decode(latents * std / used + mean).sample).astype(int)
    assert np.abs(codec.decode(latents) - expected).max() <= 1
    save_autoencoder(tmp_path / "ours", loaded, scale, shift)
    assert read_scaling(tmp_path / "ours") == (scale, shift)
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert [config[key] for key in ("scaling_factor", *BY_CHANNEL)] == [used, MEAN, STD]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latents_mean": MEAN}, "belong together"),
        ({"latents_std": STD}, "belong together"),
        ({"latents_mean": MEAN, "latents_std": STD, "shift_factor": 0.1}, "two shifts"),
        ({"latents_mean": MEAN[:3], "latents_std": STD[:3]}, "a list of 4 numbers"),
        ({"latents_mean": MEAN, "latents_std": [1.0, 1.0, 1.0, 0.0]}, "latents_std above 0"),
        ({"latents_mean": MEAN, "latents_std": ["x"] * 4}, "latents_std=['x', 'x', 'x', 'x']"),
        ({"latents_mean": {"a": 1}, "latents_std": STD}, "latents_mean={'a': 1}"),
        ({"latents_mean": [float("nan")] * 4, "latents_std": STD}, "latents_mean=[nan"),
        ({"latents_mean": 0.5, "latents_std": 2.0}, "a list of 4 numbers"),
        ({"latents_mean": [10**400] * 4, "latents_std": STD}, "latents_mean=[1000"),
        ({"latents_mean": MEAN, "latents_std": [1e-320] * 4}, "latents_std above 0"),
    ],
    ids=str,
)
def test_numbers_of_channels_that_cannot_be_applied_are_refused(tmp_path, changes, says):
    tiny_autoencoder("AutoencoderKL").save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", **changes)
    message = refusal(read_scaling, tmp_path)
    assert message.startswith(f"{tmp_path / 'config.json'}: ")
    assert says in message


@pytest.mark.parametrize("name", ["AutoencoderKLWan", "AutoencoderRAE", "ConsistencyDecoderVAE"])
def test_another_class_of_diffusers_is_refused_with_those_that_are_supported(tmp_path, name):
    tiny_autoencoder("AutoencoderKL").save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", _class_name=name)
    message = refusal(load_autoencoder, tmp_path)
    assert f"its class {name} is none of {', '.join(SUPPORTED)}" in message


def test_a_scale_that_is_null_is_measured_and_stays_null(tmp_path):
    tiny_autoencoder("AutoencoderKL", scaling_factor=None).save_pretrained(tmp_path / "theirs")
    assert import_autoencoder(tmp_path / "theirs", AUTOENCODER)[1:] == (None, 0.0)
    save_autoencoder(tmp_path / "ours", load_autoencoder(tmp_path / "theirs"))
    assert read_scaling(tmp_path / "ours") == (None, 0.0)
    assert json.loads((tmp_path / "ours/config.json").read_text())["scaling_factor"] is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scaling_factor", 0),
        ("scaling_factor", -1.0),
        ("scaling_factor", "x"),
        ("scaling_factor", float("nan")),
        ("scaling_factor", 10**400),
        ("scaling_factor", 1e-320),
        ("shift_factor", "x"),
        ("shift_factor", float("inf")),
    ],
)
def test_a_scale_or_shift_that_cannot_be_applied_is_refused(tmp_path, key, value):
    save_autoencoder(tmp_path, PatchAutoencoder(4, 2, 8, 0, 0), 1.0)
    edit_json(tmp_path / "config.json", **{key: value})
    message = refusal(read_scaling, tmp_path)
    assert message.startswith(f"{tmp_path / 'config.json'}: {key}")


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "no folder": lambda config, _: shutil.rmtree(config.parent),
    "no config": lambda config, _: config.unlink(),
    "no weights": lambda _, weights: weights.unlink(),
    "truncated": lambda _, weights: weights.write_bytes(weights.read_bytes()[:-100]),
    "empty weights": lambda _, weights: weights.write_bytes(b""),
    "text": lambda config, _: config.write_text("no json"),
    "list": lambda config, _: config.write_text("[]"),
    "no class": lambda config, _: config.write_text("{}"),
    "a U-Net": lambda config, _: edit_json(config, _class_name="UNet2DModel"),
    "a class that is not there": lambda config, _: edit_json(config, _class_name="AutoencoderX"),
    "other width": lambda config, _: edit_json(config, width=16),
    "text width": lambda config, _: edit_json(config, width="x"),
    "unknown key": lambda config, _: edit_json(config, depth=3),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_folder_that_is_no_autoencoder_is_refused(tmp_path, how):
    save_autoencoder(tmp_path, PatchAutoencoder(4, 4, 8, 0, 0))
    load_autoencoder(tmp_path)
    DAMAGE[how](tmp_path / "config.json", tmp_path / WEIGHTS)
    message = refusal(load_autoencoder, tmp_path)
    assert message.startswith(f"{tmp_path}: cannot be loaded")
    assert "autoencoder.pretrained=null" in message


@pytest.mark.parametrize("change", ["drop", "add"])
def test_diffusers_weights_that_do_not_match_their_config_are_refused(tmp_path, change):
    save_autoencoder(tmp_path, tiny_autoencoder("AutoencoderKL"))
    weights = load_file(tmp_path / WEIGHTS)
    if change == "drop":
        del weights["encoder.conv_in.weight"]
    else:
        weights["stranger.weight"] = torch.ones(3)
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    assert "do not match its config.json" in refusal(load_autoencoder, tmp_path)


def test_a_state_dict_is_the_network_that_the_params_describe_and_its_scale_is_measured(tmp_path):
    model = tiny_autoencoder("PatchAutoencoder")
    torch.save(model.state_dict(), tmp_path / "a.pt")
    loaded, scale, shift = import_autoencoder(tmp_path / "a.pt", AUTOENCODER)
    assert (scale, shift) == (None, 0.0)
    assert torch.equal(Codec(loaded).encode(IMAGES), Codec(model).encode(IMAGES))
    wider = autoencoder_params(factor=2, width=16)
    message = refusal(import_autoencoder, tmp_path / "a.pt", wider)
    assert message.startswith(f"autoencoder.pretrained={tmp_path / 'a.pt'}")
    assert "encoder.0.weight has the shape [8, 12, 3, 3], not [16, 12, 3, 3]" in message


def test_an_autoencoder_must_have_the_channels_and_the_factor_of_the_params():
    folder = Path("models/mine")
    check_autoencoder(folder, PatchAutoencoder(4, 4, 8, 0, 0), PARAMS, 16)
    for channels, factor in ((8, 4), (4, 2), (4, 8)):
        model = PatchAutoencoder(channels, factor, 8, 0, 0)
        message = refusal(check_autoencoder, folder, model, PARAMS, 16)
        assert message.startswith("models/mine: ")
        assert f"latents {[channels, 16 // factor, 16 // factor]}" in message
        assert "[4, 4, 4]; set autoencoder.latent_channels" in message


def test_an_autoencoder_that_decodes_to_other_images_is_refused():
    model = tiny_autoencoder("AutoencoderKL", out_channels=4)
    message = refusal(check_autoencoder, Path("models/mine"), model, AUTOENCODER, 16)
    assert message.startswith("models/mine: encodes 16×16 RGB images, but decodes to [16, 16, 4]")


def test_a_size_that_the_autoencoder_cannot_encode_is_refused():
    model = PatchAutoencoder(4, 4, 8, 0, 0)
    message = refusal(check_autoencoder, Path("models/mine"), model, PARAMS, 18)
    assert message.startswith("models/mine: cannot encode 18×18 images")

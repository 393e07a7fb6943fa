"""`make check-model`: what it says of each kind of model that diffusers saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO
from refusal import refusal
from small_params import FLOW, diffusion_params
from tiny_denoisers import DENOISERS, plain_network, tiny_denoiser

from advloop.export.schedulers import scheduler_config
from advloop.models.denoiser import save_checkpoint
from advloop.params.diffusion import DiffusionParams
from advloop.params.loader import Params
from check_model import check_model


def params_with(diffusion: DiffusionParams, **changes: Any) -> Params:
    """changes: of section train_diffusion."""
    training = Params.load(REPO / "params.yaml").content["train_diffusion"] | changes
    content = {"diffusion": diffusion.model_dump(), "train_diffusion": training}
    return Params(content, Path("params.yaml"))


OURS, AS_FLOW = params_with(diffusion_params()), params_with(FLOW)
V = diffusion_params()


def said(path: Path, params: Params = OURS) -> dict[str, str]:
    """What stands after each heading."""
    lines = (line.partition(": ") for line in check_model(path, params))
    return {heading: text for heading, _, text in lines}


@pytest.mark.parametrize("name", DENOISERS)
def test_class_parameters_latents_and_classes_are_those_of_the_network(tmp_path, name):
    plain_network(name).save_pretrained(tmp_path)
    found, model = said(tmp_path), tiny_denoiser(name)
    assert found["class"].startswith(model.architecture.class_name)
    assert ("learned sigma" in found["class"]) == model.learns_sigma
    count = sum(weight.numel() for weight in model.parameters())
    assert found["parameters"] == f"{count / 1e6:.1f} million"
    assert found["latents"] == "[4, 8, 8]"
    if model.architecture.text:
        assert found["texts"].startswith("embeddings of 8 values a token")
    else:
        assert found["classes"].startswith(str(model.num_classes or "none"))
    assert "autoencoder.latent_channels=4" in found["autoencoder"]
    assert "-S base.trained_as=vp" in found["process"]


def test_a_run_takes_the_model_or_is_refused_with_the_command_that_mends_it(tmp_path):
    plain_network("dit").save_pretrained(tmp_path / "transformer")
    (tmp_path / "scheduler").mkdir()
    content = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(content))
    found = said(tmp_path)
    assert found["process"].startswith("process=flow, num_train_timesteps=1000, shift=3.0")
    assert f"-S diffusion=flow -S base.pretrained={tmp_path}" in found["a run now"]
    assert said(tmp_path, AS_FLOW)["a run now"].endswith("starts from it")


@pytest.mark.parametrize("place", ["unet", "text_encoder"])
def test_captions_that_a_run_with_the_model_needs_or_must_not_have_are_in_its_command(
    tmp_path, place
):
    plain_network("text unet").save_pretrained(tmp_path / "unet")
    plain_network("unet").save_pretrained(tmp_path / "other/unet")
    (tmp_path / place).mkdir(exist_ok=True)
    for folder in (tmp_path, tmp_path / "other"):
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler_config(V)))
    encoder = tmp_path if place == "text_encoder" else "FOLDER"
    needed = f" -S data.captions=COLUMN -S data.text_encoder={encoder}` starts from it"
    assert said(tmp_path)["a run now"].endswith(f"{tmp_path}{needed}")
    with_captions = Params(OURS.content | {"data": {"captions": "text"}}, OURS.path)
    assert said(tmp_path, with_captions)["a run now"].endswith(f"{tmp_path}` starts from it")
    needed = " -S data.captions=null -S data.text_encoder=null` starts from it"
    assert said(tmp_path / "other", with_captions)["a run now"].endswith(needed)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_memory_is_of_all_weights_or_of_those_of_an_adapter_beside_them(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr("check_model.GIB", 1)  # which is too large a unit for these models
    plain_network(name).save_pretrained(tmp_path)
    model = tiny_denoiser(name)
    count = sum(weight.numel() for weight in model.parameters())
    said_of_all = said(tmp_path)["memory of a training step"]
    assert said_of_all.startswith(f"{5 * 4 * count:.2f} GiB for weights, gradients, AdamW and")
    assert f"({6 * 4 * count:.2f} under ddo and neon)" in said_of_all
    params = params_with(diffusion_params(), lora_rank=4)
    model.add_adapter(4, 0)
    size = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert said(tmp_path, params)["memory of a training step"].startswith(
        f"{4 * (count + 5 * size):.2f} GiB for weights, and gradients, AdamW and average of an "
        f"adapter of {size:,}, and"
    )
    too_much = params_with(diffusion_params(), lora_rank=400)
    assert "lora_rank=400 exceeds the rank" in refusal(said, tmp_path, too_much)


def test_a_model_without_a_size_names_its_channels_alone(tmp_path):
    plain_network("unet").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sample_size": None}))
    assert said(tmp_path)["latents"] == "4 channels"


def test_a_checkpoint_of_this_project_is_read_as_well(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", tiny_denoiser("dit"))
    found = said(tmp_path / "checkpoint.pt")
    assert found["latents"] == "[4, 8, 8]"
    assert (
        f"-S base.pretrained={tmp_path / 'checkpoint.pt'} -S base.trained_as=vp" in found["process"]
    )


def test_a_record_beside_the_model_says_its_process_and_whether_a_run_takes_it(tmp_path):
    plain_network("unet").save_pretrained(tmp_path / "unet")
    record = {"params": {"data": {}, "diffusion": diffusion_params().model_dump()}}
    (tmp_path / "stage1.json").write_text(json.dumps(record))
    found = said(tmp_path / "unet")
    assert "num_train_timesteps=1000" in found["process"]
    assert found["a run now"].endswith("starts from it")
    assert said(tmp_path / "unet", AS_FLOW)["a run now"].startswith("is refused: params.yaml: ")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"params": {"data": {}}}'])
def test_a_damaged_record_is_refused_in_the_words_of_a_run(tmp_path, content):
    plain_network("unet").save_pretrained(tmp_path / "unet")
    (tmp_path / "stage1.json").write_text(content)
    assert "stage1.json: not a record of a training" in refusal(said, tmp_path / "unet")


def test_weights_that_a_run_would_refuse_are_refused(tmp_path):
    plain_network("unet").save_pretrained(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refusal(said, tmp_path)
    weights.unlink()
    assert "cannot be loaded" in refusal(said, tmp_path)
    assert refusal(said, tmp_path / "nothing").startswith(f"{tmp_path / 'nothing'}: does not exist")
    (text := tmp_path / "README.md").write_text("A text of the user's own.")
    assert refusal(said, text) == (
        f"{text}: no checkpoint of this project; name one, or a folder of diffusers"
    )


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    assert "its class is FluxTransformer2DModel, not" in refusal(said, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "it holds no config.json" in refusal(said, tmp_path / "empty")

"""The weights of imported folders in every form that diffusers writes, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from bad_files import Code
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from refusal import refusal
from safetensors.torch import load_file, save_file
from small_params import AUTOENCODER, UNET, diffusion_params
from tiny_autoencoders import tiny_autoencoder
from tiny_unet import CONFIG
from torch import nn

from advloop.models.autoencoder import import_autoencoder, save_autoencoder
from advloop.models.base_model import import_base

NAME = "diffusion_pytorch_model"


def unet() -> nn.Module:
    return UNet2DModel(**CONFIG)


def load_unet(path: Path) -> nn.Module:
    return import_base(path, (4, 8, 8), UNET, diffusion_params()).network


def load_vae(path: Path) -> nn.Module:
    return import_autoencoder(path, AUTOENCODER)[0]


class Kind(NamedTuple):
    """How a model of a part of the pipeline is made, and loaded from a path."""

    folder: str
    make: Callable[[], Any]
    load: Callable[[Path], nn.Module]


KINDS = [
    Kind("unet", unet, load_unet),
    Kind("vae", lambda: tiny_autoencoder("AutoencoderKL"), load_vae),
    Kind("vqvae", lambda: tiny_autoencoder("VQModel"), load_vae),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.folder)
FORMS = [
    {},
    {"max_shard_size": 20_000},
    {"variant": "fp16"},
    {"variant": "bf16"},
    {"variant": "bf16", "max_shard_size": 10_000},
    {"safe_serialization": False},
    {"safe_serialization": False, "variant": "fp16"},
    {"safe_serialization": False, "max_shard_size": 20_000},
]


def stored(form: dict[str, Any]) -> torch.dtype:
    variant = form.get("variant")
    return {None: torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[variant]


def check_weights(loaded: nn.Module, made: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """The float32 weights of ``loaded`` are those of ``made`` as ``dtype`` holds them."""
    weights, expected = loaded.state_dict(), made.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert weights[name].dtype == torch.float32
        assert torch.equal(weights[name], tensor.to(dtype).float()), name


@kinds
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_weights_of_every_form_are_loaded_in_fp32_alone_or_in_a_pipeline(
    kind, form, tmp_path, capsys
):
    made, folder, dtype = kind.make(), tmp_path / kind.folder, stored(form)
    made.to(dtype).save_pretrained(folder, **form)
    if "max_shard_size" in form:
        assert len(list(folder.iterdir())) > 3
    made.float()
    for path in (tmp_path, folder):
        check_weights(kind.load(path), made, dtype)
        said, warned = capsys.readouterr()
        assert warned == ""
        lines = said.splitlines()
        assert len(lines) == ("variant" in form)
        for line in lines:
            assert line.startswith(f"{folder / NAME}.")
            assert line.endswith(f": {form['variant']} weights, in fp32 from here on")


def test_an_old_pickle_that_is_no_zip_archive_is_loaded(tmp_path):
    made = unet()
    made.save_pretrained(tmp_path)
    (tmp_path / f"{NAME}.safetensors").unlink()
    torch.save(made.state_dict(), tmp_path / f"{NAME}.bin", _use_new_zipfile_serialization=False)
    check_weights(load_unet(tmp_path), made)


def test_of_several_forms_the_most_precise_is_taken_and_rather_no_pickle(tmp_path):
    best_first: list[dict[str, Any]] = [
        {},
        {"safe_serialization": False},
        {"variant": "fp16"},
        {"variant": "fp16", "safe_serialization": False},
        {"variant": "bf16"},
        {"variant": "non_ema"},
    ]
    models = []
    for k, form in enumerate(best_first):
        models.append(unet())
        # save_pretrained removes weights of other forms
        models[k].save_pretrained(tmp_path / str(k), **form)
        shutil.copytree(tmp_path / str(k), tmp_path / "all", dirs_exist_ok=True)
    for k, made in enumerate(models):
        check_weights(load_unet(tmp_path / "all"), made)
        for file in (tmp_path / str(k)).glob(f"{NAME}*"):
            (tmp_path / "all" / file.name).unlink()


# --- Averaged weights ---


def save_average(made: Any, folder: Path) -> nn.Module:
    """What diffusers' training scripts write: other weights, and the average's own keys."""
    other = type(made).from_config(made.config)
    EMAModel(other.parameters(), model_cls=type(made), model_config=made.config).save_pretrained(
        folder
    )
    return other


@kinds
@pytest.mark.parametrize("name", ["{}_ema", "ema"])
def test_averaged_weights_beside_the_others_are_taken_and_said_so(kind, name, tmp_path, capsys):
    made = kind.make()
    made.save_pretrained(tmp_path / kind.folder)
    average = tmp_path / name.format(kind.folder)
    other = save_average(made, average)
    check_weights(kind.load(tmp_path), other)
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"{average}: averaged weights (EMA), which are taken; to take those of {kind.folder}/, "
        f"name {tmp_path / kind.folder}"
    )
    assert second.startswith(f"{average / 'config.json'}: dropped, unknown to ")
    check_weights(kind.load(tmp_path / kind.folder), made)
    assert capsys.readouterr().out == ""
    shutil.rmtree(tmp_path / kind.folder)
    check_weights(kind.load(tmp_path), other)


def test_the_average_of_another_part_of_the_pipeline_is_left_alone(tmp_path, capsys):
    for kind in KINDS[:2]:
        kind.make().save_pretrained(tmp_path / kind.folder)
    other = save_average(unet(), tmp_path / "ema")
    check_weights(load_unet(tmp_path), other)
    capsys.readouterr()
    assert type(load_vae(tmp_path)).__name__ == "AutoencoderKL"
    assert capsys.readouterr().out == ""


# --- Keys of config.json ---


@kinds
def test_keys_that_the_class_does_not_know_are_dropped_with_a_line(kind, tmp_path, capsys):
    made, file = kind.make(), tmp_path / "config.json"
    made.save_pretrained(tmp_path)
    content = json.loads(file.read_text()) | {"power\x1b": 2, "decay": [1], "_mine": 3}
    file.write_text(json.dumps(content))
    loaded = kind.load(tmp_path)
    check_weights(loaded, made)
    name = type(made).__name__
    assert capsys.readouterr() == (f"{file}: dropped, unknown to {name}: decay, power\\x1b\n", "")
    if kind.load is load_vae:
        assert not loaded.training
        save_autoencoder(tmp_path / "saved", loaded)
        assert "decay" not in (tmp_path / "saved/config.json").read_text()
        check_weights(kind.load(tmp_path / "saved"), made)
        assert capsys.readouterr().out == ""


# --- Refusals ---


def edit_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    (file,) = folder.glob("*.index.json")
    content = json.loads(file.read_text())
    change(content["weight_map"])
    file.write_text(json.dumps(content))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{NAME}-*"))


def lose_a_tensor(folder: Path) -> None:
    """From a shard, not from the index, which is all that diffusers compares with."""
    file = next(file for file in shards(folder) if len(load_file(file)) > 1)
    content = load_file(file)
    content.pop(next(iter(content)))
    save_file(content, file, metadata={"format": "pt"})


def into(folder: Path, content: object) -> None:
    (file,) = folder.glob(f"{NAME}*")
    torch.save(content, file)


def with_code(folder: Path) -> None:
    (file,) = folder.glob(f"{NAME}*")
    into(folder, torch.load(file) | {"x": Code()})


SHARDED, PICKLED = {"max_shard_size": 20_000}, {"safe_serialization": False}
REFUSED: dict[str, tuple[dict[str, Any], Callable[[Path], object], str]] = {
    "code": (PICKLED, with_code, f"{NAME}.bin is refused, since it holds more than tensors"),
    "code in a variant": (
        PICKLED | {"variant": "fp16"},
        with_code,
        f"{NAME}.fp16.bin is refused, since it holds more than tensors",
    ),
    "code in a shard": (
        PICKLED | SHARDED,
        lambda folder: torch.save({"x": Code()}, shards(folder)[1]),
        "is refused, since it holds more than tensors",
    ),
    "a list": (PICKLED, lambda folder: into(folder, [1]), f"{NAME}.bin holds a list"),
    "a truncated pickle": (
        PICKLED,
        lambda folder: os.truncate(folder / f"{NAME}.bin", 3000),
        f"{NAME}.bin is ",
    ),
    "a truncated variant": (
        {"variant": "bf16"},
        lambda folder: os.truncate(folder / f"{NAME}.bf16.safetensors", 3000),
        f"{NAME}.bf16.safetensors is damaged",
    ),
    "a pointer of git-lfs": (
        {},
        lambda folder: (folder / f"{NAME}.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        ),
        "fetch it by `git lfs pull`",
    ),
    "nothing": ({}, lambda folder: (folder / f"{NAME}.safetensors").unlink(), "it holds no "),
    "a missing shard": (SHARDED, lambda folder: shards(folder)[1].unlink(), "which is missing"),
    "a damaged shard": (
        SHARDED,
        lambda folder: os.truncate(shards(folder)[1], 100),
        "safetensors is damaged",
    ),
    "a shard without a tensor": (SHARDED, lose_a_tensor, "does not hold the tensors that"),
    "an index without a tensor": (SHARDED, lambda f: edit_index(f, dict.popitem), "does not hold"),
    "an index that leads elsewhere": (
        SHARDED,
        lambda folder: edit_index(folder, lambda names: names.update(x="../other.safetensors")),
        "'../other.safetensors', which is no .safetensors file beside it",
    ),
    "an index that leads to a pickle": (
        SHARDED,
        lambda folder: edit_index(folder, lambda names: names.update(x="evil.bin")),
        "'evil.bin', which is no .safetensors file beside it",
    ),
    "no index": (
        SHARDED,
        lambda folder: next(folder.glob("*.index.json")).write_text("[]"),
        "is no index of weights",
    ),
    "numbers in the index": (
        SHARDED,
        lambda folder: edit_index(folder, lambda names: names.update(x=1)),
        "is no index of weights",
    ),
}


@pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.folder)
@pytest.mark.parametrize("how", REFUSED)
def test_weights_that_are_damaged_or_no_tensors_are_refused(kind, how, tmp_path, monkeypatch):
    form, damage, says = REFUSED[how]
    folder = tmp_path / "model"
    kind.make().save_pretrained(folder, **form)
    kind.load(folder)
    damage(folder)
    monkeypatch.chdir(tmp_path)
    message = refusal(kind.load, folder)
    assert f"{folder}: cannot be loaded" in message
    assert says in message
    assert not (tmp_path / "executed").exists()

"""Bad checkpoints and bad imported models, and the message that each one gets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bad_artefacts import NAN, becomes, holds, json_with, says, wrong
from bad_files import Code, Plant, both, cut, drop, param, pickled, put
from bad_source import Bad
from safetensors.torch import load_file, save_file
from stage_folder import DISC, MODEL, TUNED

WEIGHTS = "diffusion_pytorch_model.safetensors"


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[str], Plant]:
    """Change the first tensor of a checkpoint's weights."""

    def changed(content: dict[str, Any]) -> dict[str, Any]:
        state = content["ema" if "ema" in content else "discriminator"]
        name = next(iter(state))
        state[name] = change(state[name])
        return content

    return becomes(changed)


def config(**changes: Any) -> Callable[[str], Plant]:
    """Change a checkpoint's configuration."""
    return becomes(lambda content: content | {"config": content["config"] | changes})


def copy_of(source: str) -> Callable[[str], Plant]:
    return lambda path: lambda root: put(path, (root / source).read_bytes())(root)


model, disc = wrong("generate", MODEL), wrong("train_diffusion", DISC)
another_scale = config(sample_size=8)(MODEL)

CHECKPOINTS = [
    model("code", holds({"config": Code(), "ema": {}}), "refused"),
    model("truncated", cut, "damaged"),
    model("zero bytes", says(b""), "damaged"),
    model("missing", drop, "not found"),
    model("a list", holds([1]), "it holds a list"),
    model("a discriminator", copy_of(DISC), "not a checkpoint"),
    model("NaN", weights(lambda t: t * NAN), "NaN"),
    model("wrong shape", weights(lambda t: t[:1]), "that fits"),
    model("groups of 0", config(norm_num_groups=0), "that fits"),
    model("no levels", config(block_out_channels=[]), "that fits"),
    model("numbers for names", becomes(lambda c: c | {"ema": {1: torch.ones(1)}}), "that fits"),
    wrong("predict", "latents/train.pt")(
        "the model is of another scale",
        lambda _: another_scale,
        "[4, 4, 4] are not the [4, 8, 8] that the model takes",
    ),
    disc("code", holds({"config": {}, "discriminator": Code()}), "refused"),
    disc("truncated", cut, "damaged"),
    disc("NaN", weights(lambda t: t * NAN), "NaN"),
    disc("wrong shape", weights(lambda t: t[:1]), "that fits"),
    disc("no levels", config(channels=[], noise_conditioned=True), "that fits"),
    disc("other channels", holds({"config": {"channels": [1]}}), "not a discriminator"),
    disc("a checkpoint", copy_of(MODEL), "not a discriminator"),
    wrong("evaluate", TUNED)("missing", drop, "not found"),
    Bad(
        "checkpoints of select_model: NaN",
        "select_model",
        both(*(weights(lambda t: t * NAN)(path) for path in (MODEL, TUNED))),
        ("checkpoint_best.pt", "NaN", "dvc repro"),
    ),
]


def safetensors_with(change: Callable[[torch.Tensor], torch.Tensor], path: str) -> Plant:
    """Change the first tensor of a safetensors file."""

    def plant(root: Path) -> None:
        content = load_file(root / path)
        name = next(iter(content))
        content[name] = change(content[name]).contiguous()
        save_file(content, root / path, metadata={"format": "pt"})

    return plant


def replaced_by(other: str, folder: str) -> Plant:
    def plant(root: Path) -> None:
        shutil.rmtree(root / folder)
        shutil.copytree(root / other, root / folder)

    return plant


def folders(kind: str, stage: str, folder: str, other: str, other_class: str) -> list[Bad]:
    """Bad diffusers folders for ``{kind}.pretrained``."""
    conf, file = f"{folder}/config.json", f"{folder}/{WEIGHTS}"
    pickle = pickled({"weight": Code()})
    shards = json.dumps({"metadata": {}, "weight_map": {"weight": "evil.bin"}})

    def case(name: str, plant: Plant, *says: str) -> Bad:
        named = (folder, *says, "config.json and safetensors")
        return Bad(
            f"{kind}.pretrained: {name}", stage, plant, named, {f"{kind}.pretrained": folder}
        )

    return [
        case("no config.json", drop(conf)),
        case("config.json is no JSON", put(conf, "{")),
        case("config.json is a list", put(conf, "[]")),
        case("nested too deep", put(conf, "[" * 100_000)),
        case("another class", replaced_by(other, folder), other_class),
        case("no weights", drop(file)),
        case(
            "weights as a pickle alone",
            both(drop(file), put(f"{folder}/diffusion_pytorch_model.bin", pickle)),
        ),
        case(
            "an index of weights that leads to a pickle",
            both(drop(file), put(f"{folder}/evil.bin", pickle), put(f"{file}.index.json", shards)),
        ),
        case("a pickle under the name of safetensors", put(file, pickle)),
        case("truncated", cut(file)),
        case("wrong shape", safetensors_with(lambda t: t[:1], file)),
        case("NaN", safetensors_with(lambda t: t * NAN, file), "NaN"),
        case("groups of 0", json_with(lambda c: c | {"norm_num_groups": 0})(conf)),
        case("no levels", json_with(lambda c: c | {"block_out_channels": []})(conf)),
        case("a text for a number", json_with(lambda c: c | {"layers_per_block": "x"})(conf)),
    ]


def state_dicts(kind: str, stage: str, file: str) -> list[Bad]:
    """Bad state dicts for ``{kind}.pretrained``."""

    def case(name: str, plant: Plant, *says: str) -> Bad:
        return Bad(
            f"{kind}.pretrained, state dict: {name}",
            stage,
            plant,
            (file, *says),
            {f"{kind}.pretrained": file},
        )

    def first(content: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        name = next(iter(content))
        return content | {name: change(content[name])}

    return [
        case("code", put(file, pickled({"weight": Code()})), "refused"),
        case("truncated", cut(file), "damaged"),
        case("a text", put(file, "weights"), file),
        case("a list", becomes(lambda c: list(c.values()))(file), "a list", "adapt"),
        case("wrapped", becomes(lambda c: {"model": c})(file), "save the state dict alone"),
        case("empty", becomes(lambda _: {})(file), "is missing; "),
        case("a layer less", becomes(lambda c: dict(list(c.items())[1:]))(file), "1 missing"),
        case("a layer more", becomes(lambda c: c | {"x": torch.ones(1)})(file), "x is unknown"),
        case("wrong shape", becomes(lambda c: first(c, lambda t: t[:1]))(file), "has the shape"),
        case("NaN", becomes(lambda c: first(c, lambda t: t * NAN))(file), "NaN"),
    ]


def scheduler(name: str, content: str, *says: str) -> Bad:
    """A bad scheduler_config.json beside the imported U-Net."""
    params = {"base.pretrained": "unet", "derived.base_source": "unet", "base.trained_as": "vp"}
    plant = put("unet/scheduler_config.json", content)
    return Bad(f"scheduler: {name}", "check_config", plant, says, params)


ALL = [
    *CHECKPOINTS,
    *state_dicts("base", "train_base", "unet.pt"),
    *state_dicts("autoencoder", "train_autoencoder", "vae.pt"),
    scheduler(
        "x0",
        '{"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}',
        "unet was trained with prediction_type=sample",
        "set diffusion.prediction_type=sample",
    ),
    scheduler(
        "epsilon of the cosine schedule",
        '{"beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon"}',
        "unet predicts epsilon with beta_schedule=squaredcos_cap_v2",
        "set base.pretrained to another model",
    ),
    scheduler("no JSON", "{", "unet/scheduler_config.json", "not a diffusion process"),
    scheduler(
        "flow matching",
        '{"_class_name": "FlowMatchEulerDiscreteScheduler"}',
        "diffusion.process=vp, but unet was trained as flow",
        "-S diffusion=flow -S base.pretrained=unet",
    ),
    Bad(
        "autoencoder.pretrained: scale of 0",
        "train_autoencoder",
        json_with(lambda c: c | {"scaling_factor": 0})("vae/config.json"),
        ("vae/config.json", "scaling_factor=0", "measured"),
        {"autoencoder.pretrained": "vae"},
    ),
    *folders("base", "train_base", "unet", "vae", "AutoencoderKL"),
    *folders("autoencoder", "train_autoencoder", "vae", "unet", "UNet2DModel"),
    Bad(
        "base.pretrained: of another scale",
        "train_base",
        json_with(lambda c: c | {"sample_size": 8})("unet/config.json"),
        ("base.pretrained=unet", "[4, 8, 8]", "[4, 4, 4]", "data.image_size"),
        {"base.pretrained": "unet"},
    ),
    Bad(
        "autoencoder.pretrained: of another scale",
        "train_autoencoder",
        param("autoencoder.latent_channels", 8),
        ("vae", "[4, 4, 4]", "[8, 4, 4]", "autoencoder.latent_channels"),
        {"autoencoder.pretrained": "vae"},
    ),
]

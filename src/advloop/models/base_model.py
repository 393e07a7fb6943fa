"""The user's own base model (``base.pretrained``): loaded from its folder or file, and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.core.files import all_finite, load_torch
from advloop.models.architectures import ARCHITECTURES, DIT, UNET
from advloop.models.denoiser import (
    Denoiser,
    check_classes,
    check_latents,
    denoiser_config,
    load_checkpoint,
)
from advloop.models.folders import check_class_names, component, load_diffusers, load_weights
from advloop.params.captions import TEXT_UNET
from advloop.params.diffusion import DiffusionParams, DiTParams, UNetParams
from advloop.params.schedulers import check_scheduler

COMPONENTS = list(dict.fromkeys(one.component for one in ARCHITECTURES.values()))
LEGACY = "Transformer2DModel"  # as which diffusers once saved what it now loads as DIT
TEXT = [  # settings of networks that are conditioned on text
    *("cross_attention_dim", "caption_channels", "joint_attention_dim", "cap_feat_dim"),
    *("caption_projection_dim", "encoder_hid_dim", "text_dim", "text_embed_dim"),
]


def _class_of(folder: Path) -> str:
    """The name of the network's class; ValueError if it cannot be used."""
    if not (folder / "config.json").is_file():
        raise ValueError("it holds no config.json")  # diffusers would ask a hub for it
    config = json.loads((folder / "config.json").read_text())
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name == LEGACY and config.get("norm_type") == "ada_norm_zero":
        return DIT
    if name in ARCHITECTURES:
        return str(name)
    known, reason = " or ".join(ARCHITECTURES), ""
    if isinstance(config, dict) and any(config.get(key) for key in TEXT):
        reason = f"; it is conditioned on text, as which this project knows {TEXT_UNET} alone"
    raise ValueError(f"its class is {name}, not {known}{reason}")


def _network_class(name: str) -> Any:
    from advloop.models.library import diffusers  # here, where it is used: it takes seconds

    return getattr(diffusers, name)


def _checked(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a Denoiser from a network's ``values``; ValueError if it cannot be used."""
    arguments = signature(_network_class(name).__init__).parameters.values()
    defaults = {a.name: a.default for a in arguments if a.default is not a.empty}
    config = {key: values.get(key, default) for key, default in defaults.items()}
    channels = config["in_channels"]
    config["out_channels"] = config["out_channels"] or channels
    if problem := ARCHITECTURES[name].problem(config):
        raise ValueError(problem)
    if config["out_channels"] not in (channels, 2 * channels):
        raise ValueError(
            f"its {config['out_channels']} out_channels are neither its {channels} in_channels "
            "nor, with a learned sigma, twice as many"
        )
    return config if name == UNET else {"_class_name": name, **config}


def _unusable(folder: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:250]
    return UserError(
        f"base.pretrained={folder}: cannot be loaded ({reason}); name a diffusers folder of a "
        f"{' or '.join(ARCHITECTURES)} with config.json and safetensors, or null to train from "
        "scratch"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The config of the denoiser in a local diffusers folder, whose weights are not read.

    UserError as of ``import_network``.
    """
    try:
        name = _class_of(folder)
        return _checked(name, json.loads((folder / "config.json").read_text()))
    except Exception as error:  # as below
        raise _unusable(folder, error) from None


def import_network(folder: Path, shape: tuple[int, int, int]) -> Denoiser:
    """The network of a local diffusers folder, for latents of ``shape`` (C, S, S).

    UserError if the folder is missing or damaged, or holds another class or shape of network.
    """
    try:
        name = _class_of(folder)
        network: Any = load_diffusers(_network_class(name), folder)
        config = _checked(name, network.config)
        if not all_finite(network.state_dict()):
            raise ValueError("its weights hold NaN or infinity")
    except Exception as error:  # a foreign folder can fail in any way; each is bad input
        raise _unusable(folder, error) from None
    if config["sample_size"] is None or config["sample_size"] == list(shape[1:]):
        config["sample_size"] = shape[1]  # nothing in the network depends on it
    denoiser = Denoiser(config)
    denoiser.load_weights(network.state_dict())
    check_latents(Path(f"base.pretrained={folder}"), denoiser, shape)
    return denoiser


def import_base(
    path: Path,
    shape: tuple[int, int, int],
    params: UNetParams | DiTParams,
    process: DiffusionParams,
    classes: Sequence[str] = (),
) -> Denoiser:
    """The network at ``path``, checked against latents of ``shape`` (C, S, S) and ``process``.

    path: the folder of a network or of a diffusers pipeline, a checkpoint of this project, or a
    state dict of the network that ``params`` describes. classes: class names in the order of
    their labels, which must be those of the model. UserError if unusable.
    """
    check_scheduler(path, process)
    check_class_names(path, classes)
    denoiser = _load_base(path, shape, params, process, len(classes))
    check_classes(Path(f"base.pretrained={path}"), denoiser, len(classes))
    return denoiser


def _load_base(
    path: Path,
    shape: tuple[int, int, int],
    params: UNetParams | DiTParams,
    process: DiffusionParams,
    num_classes: int,
) -> Denoiser:
    if path.is_file():
        content = load_torch(path)
        if isinstance(content, dict) and {"config", "ema"} <= content.keys():
            denoiser = load_checkpoint(path)
            check_latents(Path(f"base.pretrained={path}"), denoiser, shape)
            return denoiser
        denoiser = Denoiser(denoiser_config(params, shape[0], shape[1], num_classes))
        load_weights(path, denoiser.network, "base")
        return denoiser
    denoiser = import_network(component(path, *COMPONENTS), shape)
    if denoiser.config.get("time_embedding_type") == "learned" and process.process != "vp":
        raise UserError(
            f"base.pretrained={path}: its learned time_embedding_type knows whole timesteps alone, "
            f"and diffusion.process={process.process} has others; set diffusion.process=vp, or "
            "base.pretrained=null to train one"
        )
    known = denoiser.config.get("num_train_timesteps")
    if known is not None and known != process.num_train_timesteps:
        raise UserError(
            f"base.pretrained={path}: was trained on {known} timesteps, but diffusion."
            f"num_train_timesteps={process.num_train_timesteps}; set it to {known} in "
            "conf/config.yaml, or base.pretrained=null to train one"
        )
    return denoiser

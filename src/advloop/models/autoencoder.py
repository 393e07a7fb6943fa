"""The autoencoder: build, save, load, import the user's own, and check it against params.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.files import all_finite, read_json
from advloop.data.latents import Scale, read_scale
from advloop.models.codec import Codec
from advloop.models.folders import component, load_diffusers, load_weights, save_model_folder
from advloop.models.patch_autoencoder import SCALING, PatchAutoencoder
from advloop.params.data import AutoencoderParams

CLASS = "PatchAutoencoder"
# Of diffusers, those for single images that leave it to others to scale their latents.
SUPPORTED = (
    "AutoencoderKL",
    "AsymmetricAutoencoderKL",
    "AutoencoderTiny",
    "VQModel",
    "AutoencoderDC",
)
BY_CHANNEL = ("latents_mean", "latents_std")
LARGEST = 1e9  # of the numbers that scale or shift latents; the smallest scale is its inverse


def build_autoencoder(params: AutoencoderParams) -> PatchAutoencoder:
    """This project's own autoencoder, as ``params`` describes it, untrained."""
    return PatchAutoencoder(
        params.latent_channels,
        params.factor,
        params.width,
        params.encoder_blocks,
        params.decoder_blocks,
    )


def save_autoencoder(
    folder: Path, model: nn.Module, scale: Scale | None = None, shift: Scale = 0.0
) -> None:
    """Write a folder of config.json and safetensors, as diffusers has it.

    scale, shift: of the latents, for config.json. scale=None: it is still to be measured. Those of
    each channel come from the model's own config, where they stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scaling = {"scaling_factor": scale, "shift_factor": shift}
    if isinstance(scale, tuple):
        scaling = {"scaling_factor": model.config.get("scaling_factor") or 1.0}  # type: ignore[operator, union-attr]  # a mapping
    if isinstance(model, PatchAutoencoder):
        config = {k: v for k, v in model.config.items() if k not in scaling}
        if scale is not None or shift:  # otherwise the folder looks the same wherever it came from
            config |= scaling
        save_model_folder(folder, CLASS, config, model.state_dict())
        return
    known = {k: v for k, v in scaling.items() if k in model.config}  # type: ignore[operator]  # a mapping
    model.register_to_config(**known)  # type: ignore[operator]  # a diffusers ModelMixin
    model.save_pretrained(folder)  # type: ignore[operator]  # as above


def read_scaling(folder: Path) -> tuple[Scale | None, Scale]:
    """Scale and shift of the latents from config.json; scale None: to be measured. Or UserError.

    With latents_mean and latents_std, they are numbers for each channel: scaled latents are
    (encoded - latents_mean) * scaling_factor / latents_std, as in diffusers' pipelines, where a
    scaling_factor that is missing or null is 1.
    """
    file = folder / "config.json"
    config = read_json(file)
    scale = _number(file, "scaling_factor", config.get("scaling_factor"))
    shift = _number(file, "shift_factor", config.get("shift_factor")) or 0.0
    mean, std = (_numbers(file, key, config) for key in BY_CHANNEL)
    if mean is None and std is None:
        return scale, shift
    if mean is None or std is None:
        raise UserError(
            f"{file}: latents_mean and latents_std belong together, but one is missing; name both, "
            "or set both to null"
        )
    if shift:
        raise UserError(
            f"{file}: shift_factor={shift} and latents_mean are two shifts; set one to null"
        )
    return tuple((1.0 if scale is None else scale) / one for one in std), mean


def _number(file: Path, key: str, value: Any) -> float | None:
    if value is not None and not _usable(key, value):
        raise UserError(
            f"{file}: {key}={str(value)[:60]} must be a number, and the scale above 0; correct it, "
            "or set it to null to have the scale measured"
        )
    return None if value is None else float(value)


def _usable(key: str, value: Any) -> bool:
    least = 1 / LARGEST if key in ("scaling_factor", "latents_std") else -LARGEST
    return isinstance(value, int | float) and least < value < LARGEST


def _numbers(file: Path, key: str, config: dict[str, Any]) -> tuple[float, ...] | None:
    """The number of each channel; None if the config names none. Or UserError."""
    value, channels = config.get(key), config.get("latent_channels")
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) != channels or not all(_usable(key, one) for one in numbers):
        raise UserError(
            f"{file}: {key}={str(value)[:60]} must be a list of {channels} numbers, one for each "
            "channel, and latents_std above 0; correct it, or set latents_mean and latents_std to "
            "null"
        )
    return tuple(float(one) for one in numbers)


def load_autoencoder(folder: Path) -> nn.Module:
    """This project's own autoencoder, or one of diffusers, from a local folder; or UserError."""
    try:
        name = json.loads((folder / "config.json").read_text())["_class_name"]
        model: nn.Module
        if name == CLASS:
            model = PatchAutoencoder.from_pretrained(folder)
        else:
            model = _load_diffusers_class(folder, name)
        if not all_finite(model.state_dict()):
            raise ValueError("its weights hold NaN or infinity")
    except Exception as error:  # a foreign folder can fail in any way; each is bad input
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: cannot be loaded as an autoencoder ({reason}); name a folder with "
            "config.json and safetensors, or set autoencoder.pretrained=null to train one"
        ) from None
    return model


def import_autoencoder(
    path: Path, params: AutoencoderParams
) -> tuple[nn.Module, Scale | None, Scale]:
    """The autoencoder at ``path`` (``autoencoder.pretrained``), with its latents' scale and shift.

    path: the folder of an autoencoder or of a diffusers pipeline, or a state dict of the network
    that ``params`` describes, whose scale is to be measured (None). UserError if unusable.
    """
    if path.is_file():
        network = build_autoencoder(params)
        load_weights(path, network, "autoencoder")
        return network, None, 0.0
    folder = component(path, "vae", "vqvae")
    model = load_autoencoder(folder)
    return model, *read_scaling(folder)


def _load_diffusers_class(folder: Path, name: str) -> nn.Module:
    from advloop.models.library import diffusers

    if name not in SUPPORTED:
        raise ValueError(f"its class {name} is none of {', '.join((*SUPPORTED, CLASS))}")
    return load_diffusers(getattr(diffusers, name), folder, {*SCALING, *BY_CHANNEL})


def check_autoencoder(folder: Path, model: nn.Module, params: AutoencoderParams, size: int) -> None:
    """Raise UserError unless the latents of ``model`` have the shape that ``params`` describes.

    That is (latent_channels, size / factor, size / factor) for images (size, size, 3), which it
    has to decode to such images.
    """
    probe, codec = np.zeros((1, size, size, 3), dtype=np.uint8), Codec(model)
    try:
        latents = codec.encode(probe)
        shape, decoded = list(latents.shape[1:]), codec.decode(latents).shape
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: cannot encode {size}×{size} images ({reason}); change data.image_size, or "
            "use another autoencoder"
        ) from None
    if decoded != probe.shape:
        raise UserError(
            f"{folder}: encodes {size}×{size} RGB images, but decodes to {list(decoded[1:])}; use "
            "an autoencoder with out_channels=3 whose decoder undoes its encoder"
        )
    wanted = [params.latent_channels, size // params.factor, size // params.factor]
    if shape != wanted:
        raise UserError(
            f"{folder}: encodes {size}×{size} images to latents {shape}, but params.yaml says "
            f"{wanted}; set autoencoder.latent_channels and autoencoder.factor to match"
        )


def load_codec(folder: Path, latents: Path, device: torch.device, precision: str = "fp32") -> Codec:
    """The autoencoder in ``folder`` with the scale of the latents in the folder ``latents``."""
    scale, shift = read_scale(latents / "stats.json")
    return Codec(load_autoencoder(folder).to(device), scale, shift, precision)

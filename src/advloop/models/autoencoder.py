"""The autoencoder: build, save, load, import the user's own, and check it against params.yaml."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.files import all_finite, read_json
from advloop.data.latents import read_scale
from advloop.models.codec import Codec
from advloop.models.folders import component, load_diffusers, load_weights, save_model_folder
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.params.data import AutoencoderParams

CLASS = "PatchAutoencoder"


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
    folder: Path, model: nn.Module, scale: float | None = None, shift: float = 0.0
) -> None:
    """Write a folder of config.json and safetensors, as diffusers has it.

    scale, shift: of the latents, for config.json. scale=None: it is still to be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scaling = {"scaling_factor": scale, "shift_factor": shift}
    if isinstance(model, PatchAutoencoder):
        config = {k: v for k, v in model.config.items() if k not in scaling}
        if scale is not None or shift:  # otherwise the folder looks the same wherever it came from
            config |= scaling
        save_model_folder(folder, CLASS, config, model.state_dict())
        return
    known = {k: v for k, v in scaling.items() if k in model.config}  # type: ignore[operator]  # a mapping
    model.register_to_config(**known)  # type: ignore[operator]  # a diffusers ModelMixin
    model.save_pretrained(folder)  # type: ignore[operator]  # as above


def read_scaling(folder: Path) -> tuple[float | None, float]:
    """Scale and shift of the latents from config.json; scale None: to be measured. Or UserError."""
    config = read_json(folder / "config.json")
    scale, shift = config.get("scaling_factor"), config.get("shift_factor") or 0.0
    for key, value in (("scaling_factor", scale), ("shift_factor", shift)):
        number = isinstance(value, int | float) and math.isfinite(value)
        if value is not None and (not number or (key == "scaling_factor" and value <= 0)):
            raise UserError(
                f"{folder / 'config.json'}: {key}={value} must be a number, and the scale above 0; "
                "correct it, or set it to null to have the scale measured"
            )
    for key in ("latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise UserError(
                f"{folder / 'config.json'}: {key} scales each channel by itself, but here all "
                "channels share one scale; set it to null and train the base model on such latents"
            )
    return None if scale is None else float(scale), float(shift)


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
) -> tuple[nn.Module, float | None, float]:
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
    import diffusers

    if not name.startswith(("Autoencoder", "VQModel")) or not hasattr(diffusers, name):
        raise ValueError(f"its class {name} is not a diffusers autoencoder")
    return load_diffusers(getattr(diffusers, name), folder)


def check_autoencoder(folder: Path, model: nn.Module, params: AutoencoderParams, size: int) -> None:
    """Raise UserError unless the latents of ``model`` have the shape that ``params`` describes.

    That is (latent_channels, size / factor, size / factor) for images (size, size, 3).
    """
    probe = np.zeros((1, size, size, 3), dtype=np.uint8)
    try:
        shape = list(Codec(model).encode(probe).shape[1:])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: cannot encode {size}×{size} images ({reason}); change data.image_size, or "
            "use another autoencoder"
        ) from None
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

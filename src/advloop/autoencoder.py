"""The boundary between pixels and latents: an autoencoder and one global scale.

Outside this module an image is uint8 (N, S, S, 3), and a latent is float32
(N, C, H, W) in *scaled* units: (encoded - shift) * scale. An imported autoencoder may name
both in its config.json; otherwise the shift is 0 and the scale such that the training set's
latents have mean square 1 over all channels together. Channels are not whitened one by one,
which would give fine-detail channels the weight of the layout channels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.io import all_finite, read_json
from advloop.core.runtime import autocast, eval_mode
from advloop.model_folder import component, load_weights, save_model_folder
from advloop.params.data import AutoencoderParams
from advloop.patch_autoencoder import PatchAutoencoder

CLASS = "PatchAutoencoder"


def to_pixels(images: npt.NDArray[np.uint8], where: torch.device) -> torch.Tensor:
    """uint8 (B, S, S, 3) as float32 (B, 3, S, S) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(images)).to(where)
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: torch.Tensor) -> npt.NDArray[np.uint8]:
    """float (B, 3, S, S), clipped to [-1, 1], as uint8 (B, S, S, 3)."""
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


class Codec:
    """An autoencoder with its latent scale: images to scaled latents and back.

    What the autoencoder encodes is shifted, then scaled, as diffusers does it with its
    shift_factor and scaling_factor; nothing else knows either. Encoding takes the mode of the
    posterior, so that it is deterministic. precision: ``fp32`` or ``bf16``, of the encoder; the
    decoder's is float32, for it is what all pictures and image metrics pass through.
    """

    def __init__(
        self, model: nn.Module, scale: float = 1.0, shift: float = 0.0, precision: str = "fp32"
    ) -> None:
        self.model, self.scale, self.shift, self.precision = model, scale, shift, precision

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (B, S, S, 3) -> scaled latents (B, C, H, W) float32."""
        with eval_mode(self.model), autocast(self.precision, self.device):
            encoded: Any = self.model.encode(to_pixels(images, self.device))  # type: ignore[operator]  # nn.Module has no typed encode
        if hasattr(encoded, "latent_dist"):
            encoded = encoded.latent_dist.mode()
        elif not isinstance(encoded, torch.Tensor):
            encoded = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        latents: torch.Tensor = (encoded.float() - self.shift) * self.scale
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> npt.NDArray[np.uint8]:
        """Scaled latents (B, C, H, W) -> uint8 (B, S, S, 3)."""
        with eval_mode(self.model):
            encoded = latents.to(self.device) / self.scale + self.shift
            decoded: Any = self.model.decode(encoded)  # type: ignore[operator]  # as above
        return to_images(decoded if isinstance(decoded, torch.Tensor) else decoded.sample)


def build_autoencoder(params: AutoencoderParams) -> PatchAutoencoder:
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
    """A folder of config.json and safetensors, the form that diffusers models have.

    scale, shift: what config.json is to say of the latents; None: the scale is to be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scaling = {"scaling_factor": scale, "shift_factor": shift}
    if isinstance(model, PatchAutoencoder):
        # without a scale, what is in data/stage1, whatever the model was loaded from
        plain = {k: v for k, v in model.config.items() if k not in scaling}
        named = plain if scale is None and not shift else plain | scaling
        save_model_folder(folder, CLASS, named, model.state_dict())
        return
    taken = {k: v for k, v in scaling.items() if k in model.config}  # type: ignore[operator]  # a mapping
    model.register_to_config(**taken)  # type: ignore[operator]  # a diffusers ModelMixin
    model.save_pretrained(folder)  # type: ignore[operator]  # as above


def read_scaling(folder: Path) -> tuple[float | None, float]:
    """Scale and shift that an autoencoder's config.json names; None: no scale, measure it."""
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
                f"{folder / 'config.json'}: {key} scales each channel by itself, which nothing "
                "here does; set it to null, and train the base model on such latents"
            )
    return None if scale is None else float(scale), float(shift)


def load_autoencoder(folder: Path) -> nn.Module:
    """Our own autoencoder or a diffusers one from a local folder; UserError if unusable."""
    try:
        name = json.loads((folder / "config.json").read_text())["_class_name"]
        model: nn.Module
        if name == CLASS:
            model = PatchAutoencoder.from_pretrained(folder)
        else:
            model = _load_diffusers(folder, name)
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
    """What ``autoencoder.pretrained`` names, with the scale and the shift of its latents.

    A folder of an autoencoder, a diffusers pipeline's folder, or a state dict of the network
    that ``params`` describe, whose scale is to be measured (None). UserError if unusable.
    """
    if path.is_file():
        network = build_autoencoder(params)
        load_weights(path, network, "autoencoder")
        return network, None, 0.0
    folder = component(path, "vae", "vqvae")
    model = load_autoencoder(folder)
    return model, *read_scaling(folder)


def _load_diffusers(folder: Path, name: str) -> nn.Module:
    import diffusers

    if not name.startswith(("Autoencoder", "VQModel")) or not hasattr(diffusers, name):
        raise ValueError(f"its class {name} is no diffusers autoencoder")
    loaded, report = getattr(diffusers, name).from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        low_cpu_mem_usage=False,  # otherwise it asks for accelerate in four lines
    )
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        raise ValueError("its weights are not those of its config.json")
    assert isinstance(loaded, nn.Module)
    return loaded


def check_autoencoder(folder: Path, model: nn.Module, params: AutoencoderParams, size: int) -> None:
    """Raise UserError unless ``size`` pixels become (latent_channels, size / factor, …)."""
    probe = np.zeros((1, size, size, 3), dtype=np.uint8)
    try:
        shape = list(Codec(model).encode(probe).shape[1:])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: cannot encode {size}×{size} images ({reason})") from None
    wanted = [params.latent_channels, size // params.factor, size // params.factor]
    if shape != wanted:
        raise UserError(
            f"{folder}: encodes {size}×{size} images to latents {shape}, but params say {wanted}; "
            "set autoencoder.latent_channels and autoencoder.factor to what it has"
        )

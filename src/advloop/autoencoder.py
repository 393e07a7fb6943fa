"""The boundary between pixels and latents: an autoencoder and one global scale.

Outside this module an image is uint8 (N, S, S, 3), and a latent is float32
(N, C, H, W) in *scaled* units: the training set's latents have mean square 1 over
all channels together. Channels are not whitened one by one, which would give
fine-detail channels the weight of the layout channels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from advloop.errors import UserError
from advloop.io import all_finite
from advloop.model_folder import WEIGHTS, save_model_folder
from advloop.params.data import AutoencoderParams
from advloop.runtime import eval_mode

CLASS = "PatchAutoencoder"


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), 3×3, constant width; the last convolution starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + residual


def _residual_path(inside: int, width: int, outside: int, blocks: int) -> nn.Sequential:
    last = nn.Conv2d(width, outside, 3, padding=1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    body = [ResidualBlock(width) for _ in range(blocks)]
    return nn.Sequential(nn.Conv2d(inside, width, 3, padding=1), *body, nn.SiLU(), last)


class PatchAutoencoder(nn.Module):
    """Linear projection of pixel patches plus residual convolutions on the latent grid.

    pixels (B, 3, S, S) in [-1, 1] <-> latents (B, C, S / factor, S / factor). The linear
    part can be set to the patches' principal components; the residual parts start at zero
    and learn what a linear map misses.
    """

    def __init__(
        self,
        latent_channels: int,
        factor: int,
        width: int,
        encoder_blocks: int,
        decoder_blocks: int,
    ) -> None:
        super().__init__()
        self.config = {
            "latent_channels": latent_channels,
            "factor": factor,
            "width": width,
            "encoder_blocks": encoder_blocks,
            "decoder_blocks": decoder_blocks,
        }
        patch = 3 * factor**2
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(factor), nn.PixelShuffle(factor)
        self.project = nn.Conv2d(patch, latent_channels, 1)
        self.expand = nn.Conv2d(latent_channels, patch, 1)
        self.encoder = _residual_path(patch, width, latent_channels, encoder_blocks)
        self.decoder = _residual_path(latent_channels, width, patch, decoder_blocks)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.unshuffle(pixels)
        latents: torch.Tensor = self.project(patches) + self.encoder(patches)
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.shuffle(self.expand(latents) + self.decoder(latents))
        return pixels

    @torch.no_grad()
    def start_from_pca(self, patches: torch.Tensor) -> None:
        """Set the linear part to the principal components of ``patches`` (N, 3 * factor^2)."""
        mean = patches.mean(0)
        _, basis = torch.linalg.eigh(((patches - mean).T @ (patches - mean)).double())
        basis = basis[:, -self.project.out_channels :].flip(1).to(patches.dtype)
        self.project.weight.copy_(basis.T[:, :, None, None])
        self.expand.weight.copy_(basis[:, :, None, None])
        assert self.project.bias is not None
        assert self.expand.bias is not None
        self.project.bias.copy_(-basis.T @ mean)
        self.expand.bias.copy_(mean)


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

    scale multiplies what the autoencoder encodes; encoding takes the mode of the
    posterior, so that it is deterministic.
    """

    def __init__(self, model: nn.Module, scale: float = 1.0) -> None:
        self.model, self.scale = model, scale

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (B, S, S, 3) -> scaled latents (B, C, H, W) float32."""
        with eval_mode(self.model):
            encoded: Any = self.model.encode(to_pixels(images, self.device))  # type: ignore[operator]  # nn.Module has no typed encode
        if hasattr(encoded, "latent_dist"):
            encoded = encoded.latent_dist.mode()
        elif not isinstance(encoded, torch.Tensor):
            encoded = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        latents: torch.Tensor = encoded * self.scale
        return latents.float()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> npt.NDArray[np.uint8]:
        """Scaled latents (B, C, H, W) -> uint8 (B, S, S, 3)."""
        with eval_mode(self.model):
            pixels: Any = self.model.decode(latents.to(self.device) / self.scale)  # type: ignore[operator]  # as above
        return to_images(pixels if isinstance(pixels, torch.Tensor) else pixels.sample)


def build_autoencoder(params: AutoencoderParams) -> PatchAutoencoder:
    return PatchAutoencoder(
        params.latent_channels,
        params.factor,
        params.width,
        params.encoder_blocks,
        params.decoder_blocks,
    )


def save_autoencoder(folder: Path, model: nn.Module) -> None:
    """A folder of config.json and safetensors, the form that diffusers models have."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PatchAutoencoder):
        save_model_folder(folder, CLASS, model.config, model.state_dict())
    else:
        model.save_pretrained(folder)  # type: ignore[operator]  # a diffusers ModelMixin


def load_autoencoder(folder: Path) -> nn.Module:
    """Our own autoencoder or a diffusers one from a local folder; UserError if unusable."""
    try:
        config = json.loads((folder / "config.json").read_text())
        name = config["_class_name"]
        model = _load_own(folder, config) if name == CLASS else _load_diffusers(folder, name)
        if not all_finite(model.state_dict()):
            raise ValueError("its weights hold NaN or infinity")
    except Exception as error:  # a foreign folder can fail in any way; each is bad input
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: cannot be loaded as an autoencoder ({reason}); name a folder with "
            "config.json and safetensors, or set autoencoder.pretrained=null to train one"
        ) from None
    return model


def _load_own(folder: Path, config: dict[str, Any]) -> nn.Module:
    from safetensors.torch import load_file

    model = PatchAutoencoder(**{k: v for k, v in config.items() if not k.startswith("_")})
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model


def _load_diffusers(folder: Path, name: str) -> nn.Module:
    import diffusers

    if not name.startswith("Autoencoder") or not hasattr(diffusers, name):
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

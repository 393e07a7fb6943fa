"""An autoencoder of image patches, in torch alone.

Stage select puts this very file into the folder that it writes, so that the weights can be used
where the rest of the project is not: it imports nothing of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

WEIGHTS = "diffusion_pytorch_model.safetensors"
SCALING = ("scaling_factor", "shift_factor")  # of the latents, which the network itself ignores


class Config(dict[str, Any]):
    """What config.json says, by key and, as in diffusers, by attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Decoded(NamedTuple):
    """What diffusers' pipelines expect of a decoder."""

    sample: torch.Tensor


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
        self.config = Config(
            latent_channels=latent_channels,
            factor=factor,
            width=width,
            encoder_blocks=encoder_blocks,
            decoder_blocks=decoder_blocks,
        )
        patch = 3 * factor**2
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(factor), nn.PixelShuffle(factor)
        self.project = nn.Conv2d(patch, latent_channels, 1)
        self.expand = nn.Conv2d(latent_channels, patch, 1)
        self.encoder = _residual_path(patch, width, latent_channels, encoder_blocks)
        self.decoder = _residual_path(latent_channels, width, patch, decoder_blocks)

    @property
    def device(self) -> torch.device:
        return self.project.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.project.weight.dtype

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.unshuffle(pixels)
        latents: torch.Tensor = self.project(patches) + self.encoder(patches)
        return latents

    def decode(self, latents: torch.Tensor) -> Decoded:
        return Decoded(self.shuffle(self.expand(latents) + self.decoder(latents)))

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

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PatchAutoencoder:
        """The network of a folder with config.json and safetensors; its own errors if damaged.

        ``config`` is all that config.json says, as of a diffusers model.
        """
        from safetensors.torch import load_file

        config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
        known = Config((k, v) for k, v in config.items() if not k.startswith("_"))
        model = cls(**{k: v for k, v in known.items() if k not in SCALING})
        model.load_state_dict(load_file(Path(folder) / WEIGHTS))
        model.config = known
        return model.eval()

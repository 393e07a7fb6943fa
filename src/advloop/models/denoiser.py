"""The denoising network: a diffusers UNet2DModel, and its checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import nn

from advloop.core.errors import UserError
from advloop.core.files import load_model, save_torch
from advloop.core.random import seeded
from advloop.params.diffusion import UNetParams


class GroupNorm32(nn.GroupNorm):
    """Group normalisation with float32 statistics; the output has the input's type.

    Under autocast, a GPU would return float32 and so double the memory of all later activations.
    The CPU's kernel already adds up in float32 and returns bfloat16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


def _normalise_in_float32(network: nn.Module) -> None:
    """Replace each group normalisation by a GroupNorm32; the names of weights stay."""
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.GroupNorm:
                norm32 = GroupNorm32(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
                setattr(parent, name, norm32)


class Denoiser(nn.Module):
    """A UNet2DModel with the ``config`` that builds it again: its keyword arguments."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet2DModel(**config)
        _normalise_in_float32(self.unet)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the latents that it denoises."""
        size = self.config["sample_size"]
        return self.config["in_channels"], size, size

    @property
    def num_classes(self) -> int:
        """Number of classes that it is conditioned on; 0 if it is unconditional."""
        return self.config.get("num_class_embeds") or 0

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Output (B, C, H, W) float32, of the prediction type that the network was trained with.

        noisy: (B, C, H, W); timesteps: (B,) int in [0, T); labels: (B,) int in [0, num_classes),
        for a class-conditional network alone.
        """
        noisy = noisy.contiguous()
        output: torch.Tensor = self.unet(noisy, timesteps, labels, return_dict=False)[0]
        return output.float()


def unet_config(
    params: UNetParams, channels: int, size: int, num_classes: int = 0
) -> dict[str, Any]:
    """Arguments of UNet2DModel for latents (channels, size, size); num_classes=0: unconditional."""
    levels = len(params.block_out_channels)
    attention = [level in params.attention_levels for level in range(levels)]
    config = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": list(params.block_out_channels),
        "layers_per_block": params.layers_per_block,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        "norm_num_groups": params.norm_num_groups,
    }
    return config | ({"num_class_embeds": num_classes} if num_classes else {})


def build_unet(config: dict[str, Any], seed: int) -> Denoiser:
    """A freshly initialised network; the same seed gives the same weights."""
    with seeded(seed, "unet"):
        return Denoiser(config)


def save_checkpoint(path: Path, ema: Denoiser, model: Denoiser | None = None) -> None:
    """Write the EMA weights, which later stages use, and the raw ones of ``model`` if given."""
    content = {"config": ema.config, "ema": _weights(ema)}
    if model is not None:
        content["model"] = _weights(model)
    save_torch(path, content)


def _weights(denoiser: Denoiser) -> dict[str, torch.Tensor]:
    state = denoiser.unet.state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_checkpoint(path: Path) -> Denoiser:
    """The network of a checkpoint, with its EMA weights; UserError if the file is unusable."""

    def build(content: dict[str, Any]) -> Denoiser:
        denoiser = Denoiser(content["config"])
        denoiser.unet.load_state_dict(content["ema"])
        return denoiser

    return load_model(path, "checkpoint", build)


def frozen_copy(denoiser: Denoiser) -> Denoiser:
    """A copy of the network that takes no gradients, in evaluation mode."""
    return copy.deepcopy(denoiser).requires_grad_(False).eval()


def check_latents(path: Path, denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    """Raise UserError unless the network denoises latents of ``shape`` (C, H, W)."""
    if tuple(shape) != denoiser.latent_shape:
        raise UserError(
            f"{path}: denoises latents {list(denoiser.latent_shape)}, but this run's are "
            f"{list(shape)}; adapt autoencoder.latent_channels and data.image_size, or the model"
        )


def check_classes(path: Path, denoiser: Denoiser, num_classes: int) -> None:
    """Raise UserError unless the network is conditioned on ``num_classes`` (0: unconditional)."""
    if denoiser.num_classes != num_classes:
        raise UserError(
            f"{path}: knows {denoiser.num_classes} classes, but this run's images have "
            f"{num_classes}; set data.classes to match, or train a base model "
            "(base.pretrained=null)"
        )

"""The two shapes that benchmarks run in, demo and full, and what they ask of a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from advloop.models.denoiser import unet_config
from advloop.params.data import AutoencoderParams, DataParams
from advloop.params.diffusion import UNetParams
from advloop.params.loader import Params

ROOT = Path(__file__).resolve().parents[2]


def shape_params(shape: str) -> Params:
    """params.yaml (``demo``), with the scale's own parameters over it (``full``)."""
    path = ROOT / "conf/scale" / f"{shape}.yaml"
    merged = OmegaConf.merge(OmegaConf.load(ROOT / "params.yaml"), OmegaConf.load(path))
    content: Any = OmegaConf.to_container(merged)
    return Params(content, path)


def shape_unet(params: Params) -> dict[str, Any]:
    """Arguments of UNet2DModel, the shape of the latents among them."""
    autoencoder = params.section("autoencoder", AutoencoderParams)
    side = params.section("data", DataParams).image_size // autoencoder.factor
    return unet_config(params.section("unet", UNetParams), autoencoder.latent_channels, side)


def fast_precision(device: torch.device) -> str:
    """bf16 if the device has instructions for it; other CPUs are slower in bf16."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if fast else "fp32"


def waiter(device: torch.device) -> Callable[[], object]:
    """A function that returns when the device has finished its work."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None

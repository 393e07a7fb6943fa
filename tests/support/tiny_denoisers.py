"""The smallest denoiser of each kind, for latents (4, 8, 8): configs as in a checkpoint."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_unet import CONFIG

from advloop.core.random import seeded
from advloop.models.architectures import DIT
from advloop.models.caption_table import CaptionTable
from advloop.models.denoiser import Denoiser
from advloop.params.captions import TEXT_UNET

TINY_DIT = {
    "_class_name": DIT,
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_embeds_ada_norm": 1,
}
TINY_TEXT_UNET = CONFIG | {
    "_class_name": TEXT_UNET,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 4,
    "cross_attention_dim": 8,
}
CLASSES = 3
DENOISERS = {
    "unet": CONFIG,
    "unet with classes": CONFIG | {"num_class_embeds": CLASSES},
    "unet with sigma": CONFIG | {"out_channels": 8},
    "dit": TINY_DIT,
    "dit with classes": TINY_DIT | {"num_embeds_ada_norm": CLASSES},
    "text unet": TINY_TEXT_UNET,
    "dit with sigma": TINY_DIT | {"num_embeds_ada_norm": CLASSES, "out_channels": 8},
}


def tiny_denoiser(name: str) -> Denoiser:
    """With random weights everywhere, those of a learned sigma, too.

    A network of texts has CLASSES random captions.
    """
    with seeded(0, name):
        model = Denoiser(DENOISERS[name])
        model.load_weights({k: 0.2 * torch.randn(v.shape) for k, v in model.weights().items()})
        if model.architecture.text:
            model.captions = CaptionTable(torch.randn(CLASSES + 1, 5, 8))
    return model


def plain_network(name: str) -> Any:
    """diffusers' own network with all weights of the tiny denoiser."""
    config = {k: v for k, v in DENOISERS[name].items() if k != "_class_name"}
    network = getattr(diffusers, DENOISERS[name].get("_class_name", "UNet2DModel"))(**config)
    network.load_state_dict(tiny_denoiser(name).weights())
    return network.eval()

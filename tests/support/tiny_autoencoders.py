"""The smallest autoencoder of each kind, random: pixels (3, 16, 16) to latents (4, 8, 8)."""

from __future__ import annotations

from typing import Any

from torch import nn

from advloop.core.random import seeded
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.params.data import AutoencoderParams

KINDS = (
    "PatchAutoencoder",
    "AutoencoderKL",
    "AsymmetricAutoencoderKL",
    "AutoencoderTiny",
    "VQModel",
    "AutoencoderDC",
)


def autoencoder_params(**changes: Any) -> AutoencoderParams:
    """Of a PatchAutoencoder for latents (4, 4, 4) of such pixels."""
    small = {
        "pretrained": None,
        "latent_channels": 4,
        "factor": 4,
        "width": 8,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "l1_weight": 0.3,
        "latent_noise": 0.1,
    }
    return AutoencoderParams(**small | changes)


PARAMS = autoencoder_params()

UNET_LIKE = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
PLAIN = {
    "latent_channels": 4,
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": UNET_LIKE,
    "AsymmetricAutoencoderKL": {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "down_block_out_channels": (8, 8),
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "up_block_out_channels": (8, 16),
        "latent_channels": 4,
        "norm_num_groups": 4,
    },
    "VQModel": UNET_LIKE | {"num_vq_embeddings": 32},
    "AutoencoderTiny": PLAIN | {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)},
    "AutoencoderDC": PLAIN
    | {
        "attention_head_dim": 4,
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
        "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock",
    },
}


def tiny_autoencoder(kind: str, **config: Any) -> nn.Module:
    """kind: a name of KINDS; config: further arguments of a diffusers class."""
    import diffusers

    with seeded(0, kind):
        if kind == "PatchAutoencoder":
            model = PatchAutoencoder(4, 2, 8, 1, 1)
            nn.init.normal_(model.decoder[-1].weight, std=0.1)
            return model.eval()
        return getattr(diffusers, kind)(**CONFIGS[kind] | config).eval()

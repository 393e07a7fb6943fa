"""The smallest autoencoder of each kind, random: (3, 16, 16) pixels to latents (4, 8, 8)."""

from __future__ import annotations

from typing import Any

from torch import nn

from advloop.core.runtime import seeded
from advloop.patch_autoencoder import PatchAutoencoder

KINDS = ("PatchAutoencoder", "AutoencoderKL", "AutoencoderTiny", "VQModel")


def tiny_autoencoder(kind: str, **config: Any) -> nn.Module:
    """config: of a diffusers class, its scaling_factor say."""
    import diffusers

    convolutions = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    }
    with seeded(0, kind):
        if kind == "PatchAutoencoder":
            model = PatchAutoencoder(4, 2, 8, 1, 1)
            nn.init.normal_(model.decoder[-1].weight, std=0.1)
            return model.eval()
        if kind == "VQModel":
            return diffusers.VQModel(**convolutions, num_vq_embeddings=32, **config).eval()
        if kind == "AutoencoderTiny":
            return diffusers.AutoencoderTiny(
                latent_channels=4,
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1),
                **config,
            ).eval()
        return diffusers.AutoencoderKL(**convolutions, **config).eval()

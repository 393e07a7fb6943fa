"""diffusers' own pipeline for the parts of a model, if one samples what this project samples.

Both know one number as the scale of latents, and a DDIM scheduler; neither a shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from advloop.data.latents import Scale
from advloop.models.architectures import DIT
from advloop.params.captions import TEXT_UNET
from advloop.params.diffusion import DiffusionParams, VariancePreservingParams

STABLE_DIFFUSION, DIT_PIPELINE = "StableDiffusionPipeline", "DiTPipeline"
NULL_CLASS = 1000  # of DiTPipeline, which knows ImageNet's classes alone
SIDE = 8  # StableDiffusionPipeline refuses images whose sides are no multiple of it


def plain_pipeline(
    config: Mapping[str, Any],
    autoencoder: nn.Module,
    scales: tuple[Scale, Scale],
    diffusion: DiffusionParams,
    guidance_scale: float,
    classes: Sequence[str],
    encoder: str | None,
) -> str | None:
    """The name of the pipeline, or None if there is none.

    config: of the network, as in a checkpoint; scales: scale and shift of the latents; encoder: the
    model_type of the text encoder, or None.
    """
    scale, shift = scales
    if type(autoencoder).__name__ != "AutoencoderKL" or not isinstance(scale, float) or shift != 0:
        return None
    if not isinstance(diffusion, VariancePreservingParams):
        return None
    name = config.get("_class_name")
    if name == DIT and classes:
        known = guidance_scale > 1 and config["num_embeds_ada_norm"] == NULL_CLASS
        return DIT_PIPELINE if known or guidance_scale == 1 else None
    if name == TEXT_UNET and encoder == "clip_text_model":
        factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)  # type: ignore[index]  # a mapping
        fits = config["sample_size"] * factor % SIDE == 0
        whole = config["in_channels"] == config["out_channels"]
        return STABLE_DIFFUSION if fits and whole and guidance_scale >= 1 else None
    return None


def plain_index(pipeline: str, classes: Sequence[str]) -> dict[str, Any]:
    """What model_index.json says of the pipeline beside the scheduler, network and text encoder."""
    index: dict[str, Any] = {"_class_name": pipeline, "vae": ["diffusers", "AutoencoderKL"]}
    if pipeline == DIT_PIPELINE:
        return index | {"id2label": {str(label): name for label, name in enumerate(classes)}}
    unused = ("safety_checker", "feature_extractor", "image_encoder")
    return index | {name: [None, None] for name in unused} | {"requires_safety_checker": False}

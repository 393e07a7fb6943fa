"""Refuse captions without what they need: a text encoder, and a base model that takes its outputs.

Reads config.json of both models, and none of their weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.params.data import DataParams
from advloop.params.loader import Params
from advloop.params.training import BaseParams

TEXT_UNET = "UNet2DConditionModel"
WIDTHS = {"clip_text_model": "hidden_size", "t5": "d_model"}  # by transformers' model_type
ENCODERS = "a CLIP text encoder or T5 that transformers' save_pretrained wrote, with its tokenizer"
PLACES = ("", "unet_ema", "transformer_ema", "ema", "unet", "transformer")  # of a base model
BESIDE = ("addition_embed_type", "class_embed_type", "num_class_embeds", "time_cond_proj_dim")


def encoder_folder(folder: Path) -> Path:
    """That of the encoder in the folder of a pipeline, or ``folder`` itself."""
    part = folder / "text_encoder"
    return part if part.is_dir() else folder


def tokenizer_folder(folder: Path) -> Path:
    """That of the tokenizer in the folder of a pipeline, or ``folder`` itself."""
    part = folder / "tokenizer"
    return part if part.is_dir() else folder


def unusable_encoder(folder: Path, reason: object) -> UserError:
    """The error of a folder that ``data.text_encoder`` cannot name."""
    return UserError(
        f"data.text_encoder={folder}: not a text encoder of this project ({reason}); name the "
        f"folder of {ENCODERS}, or of a pipeline with text_encoder/ and tokenizer/"
    )


def read_encoder(folder: Path) -> tuple[str, int]:
    """The model_type of the text encoder in a folder, and the width of what it gives a token.

    UserError if it is none of WIDTHS.
    """
    try:
        content = json.loads((encoder_folder(folder) / "config.json").read_text())
        kind = content.get("model_type") if isinstance(content, dict) else None
        if kind not in WIDTHS:
            raise ValueError(f"its model_type is {kind}, not {' or '.join(WIDTHS)}")
        width = content.get(WIDTHS[kind])
        if type(width) is not int or width < 1:
            raise ValueError(f"its {WIDTHS[kind]}={width} is not a whole number of at least 1")
    except (ValueError, OSError, RecursionError) as error:
        raise unusable_encoder(folder, error) from None
    return kind, width


def network_problem(config: Mapping[str, Any]) -> str | None:
    """Why a TEXT_UNET with this config.json cannot be used, or None."""
    for key in BESIDE:
        if (value := config.get(key)) is not None:
            return f"its {key}={value} asks for conditions beside the caption, as SDXL's does"
    if (kind := config.get("encoder_hid_dim_type")) not in (None, "text_proj"):
        return f"its encoder_hid_dim_type={kind} asks for conditions beside the caption"
    if (kind := config.get("attention_type")) not in (None, "default"):
        return f"its attention_type={kind} asks for conditions beside the caption"
    if (kind := config.get("time_embedding_type")) not in (None, "positional"):
        return f"it takes the time as {kind}, not as timesteps"
    if type(context_width(config)) is not int:
        return f"its cross_attention_dim={config.get('cross_attention_dim')} is not one number"
    return None


def context_width(config: Mapping[str, Any]) -> Any:
    """Values of each token's embedding that a TEXT_UNET takes: a whole number, if usable."""
    found = config.get("encoder_hid_dim") or config.get("cross_attention_dim", 1280)
    if isinstance(found, list | tuple) and len(set(found)) == 1:
        return found[0]
    return found


def check_width(network: object, wanted: int, encoder: object, width: int) -> None:
    """Raise UserError unless the encoder gives a token as many values as the network takes.

    network, encoder: what messages call them.
    """
    if wanted != width:
        raise UserError(
            f"{network}: takes embeddings of {wanted} values (cross_attention_dim), but "
            f"{encoder} gives {width}; set data.text_encoder to the encoder that the model was "
            "trained with"
        )


def check_captions(params: Params) -> None:
    """Raise UserError where captions, classes, text encoder and base model do not go together."""
    data, base = params.section("data", DataParams), params.section("base", BaseParams).pretrained
    config = network_config(Path(base)) if base else {}
    if data.captions is None:
        if data.text_encoder is not None:
            problem = "has no use without data.captions, the column that it reads; use null"
            raise params.fail("data.text_encoder", data.text_encoder, problem)
        if config.get("_class_name") == TEXT_UNET:
            raise texts_needed(f"{params.path}: base.pretrained={base}")
        return
    if not data.captions.strip():
        problem = "must name a column of manifest.csv; null means none"
        raise params.fail("data.captions", "", problem)
    if data.classes != "none":
        problem = f"and data.classes={data.classes} exclude each other; use data.classes=none"
        raise params.fail("data.captions", data.captions, problem)
    if data.text_encoder is None:
        problem = f"needs data.text_encoder, the folder of {ENCODERS}"
        raise params.fail("data.captions", data.captions, problem, option="data.text_encoder")
    if base is None:
        problem = f"needs base.pretrained, a {TEXT_UNET}, since none is trained from scratch here"
        raise params.fail("data.captions", data.captions, problem, option="base.pretrained")
    _, width = read_encoder(Path(data.text_encoder))
    if not config:
        return  # a checkpoint, or a folder of which loading will tell
    if (name := config.get("_class_name")) != TEXT_UNET:
        raise no_text_model(f"{params.path}: base.pretrained={base}", name)
    if (reason := network_problem(config)) is not None:
        raise UserError(
            f"{params.path}: base.pretrained={base}: {reason}, and this project has the caption "
            f"alone; name another {TEXT_UNET}, such as that of Stable Diffusion 1 or 2"
        )
    network = f"{params.path}: base.pretrained={base}"
    check_width(network, context_width(config), f"data.text_encoder={data.text_encoder}", width)


def texts_needed(network: str) -> UserError:
    """The error of a model that is conditioned on text, in a run without."""
    return UserError(
        f"{network}: is a {TEXT_UNET}: text conditions need data.captions=COLUMN and "
        "data.text_encoder=FOLDER; name a column of manifest.csv, and the text encoder that the "
        "model was trained with, or another base model"
    )


def no_text_model(network: str, class_name: object) -> UserError:
    """The error of a model that is not conditioned on text, in a run with captions."""
    return UserError(
        f"{network}: is a {class_name}, which takes no text, but data.captions is set; name a "
        f"{TEXT_UNET}, or set data.captions=null and data.text_encoder=null"
    )


def network_config(base: Path) -> dict[str, Any]:
    """config.json of the base model in a folder; empty if there is none that can be read."""
    for place in PLACES:
        try:
            content = json.loads((base / place / "config.json").read_text())
        except (ValueError, OSError, RecursionError):
            continue
        return content if isinstance(content, dict) else {}
    return {}

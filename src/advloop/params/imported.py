"""Refuse an imported model that does not suit this run.

A network of another diffusion process predicts another quantity, and a model of another split has
seen images that are held out here. The shapes of the weights show neither, but two files beside
a model do: that of its scheduler, and ``stage1.json``, to which data/stage1/export.py writes all
parameters of a training. Of a model with neither file, the user says it (``base.trained_as``).
A network of image features has to suit ``evaluate.feature_size``, a text encoder the base model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.params.captions import check_captions, network_config
from advloop.params.data import AutoencoderParams, DataParams
from advloop.params.diffusion import read_diffusion
from advloop.params.evaluation import DINOV2_FOLDER, MIN_SIZE, EvaluateParams
from advloop.params.loader import Params
from advloop.params.schedulers import (
    SCHEDULER,
    check_process,
    check_scheduler,
    find_scheduler,
)
from advloop.params.training import BaseParams, TrainDiffusionParams

RECORD = "stage1.json"
PATCH_SIZE, MAX_PATCH_SIZE = 14, 256  # of a DINOv2, if its config.json names none
SPLIT = ("val_fraction", "test_fraction", "split_seed")


def check_provenance(params: Params) -> None:
    """Raise UserError if an imported model contradicts this run's parameters."""
    check_captions(params)
    diffusion = read_diffusion(params)
    autoencoder = params.section("autoencoder", AutoencoderParams).pretrained
    imported = params.section("base", BaseParams)
    base = imported.pretrained
    if base:
        check_scheduler(Path(base), diffusion)
        _check_said(params, Path(base), imported.trained_as, diffusion.process)
        _check_rank(params, Path(base))
    for section, model in (("autoencoder", autoencoder), ("base", base)):
        if not model or not (file := Path(model).parent / RECORD).is_file():
            continue
        trained = read_record(file)
        _check_data(params, section, model, file, trained["data"])
        if section == "base":
            check_process(model, file, trained["diffusion"], diffusion)
    evaluate = params.section("evaluate", EvaluateParams)
    if evaluate.features == "dinov2" and evaluate.feature_weights:
        check_dinov2(Path(evaluate.feature_weights), evaluate.feature_size)


def network_of(base: Path) -> str | None:
    """``unet`` or ``dit``, as a folder of diffusers says; None where weights alone would tell."""
    return _kind(network_config(base))


def _kind(config: Mapping[str, Any]) -> str | None:
    name = str(config.get("_class_name"))
    kinds = {"unet": ("UNet",), "dit": ("DiT", "Transformer2D")}
    return next((kind for kind, starts in kinds.items() if name.startswith(starts)), None)


def _check_rank(params: Params, base: Path) -> None:
    """Refuse an adapter that no layer of the network is wide enough for, as config.json says.

    ``models.adapters`` compares it with each layer, but only when a round trains.
    """
    rank = params.section("train_diffusion", TrainDiffusionParams).lora_rank
    if rank is None or (kind := _kind(config := network_config(base))) is None:
        return
    try:
        widest = (
            max(config["block_out_channels"])
            if kind == "unet"
            else config["num_attention_heads"] * config["attention_head_dim"]
        )
        exceeds = rank > widest
    except (LookupError, TypeError, ValueError):
        return  # the import says what is wrong with it
    if exceeds:
        problem = f"exceeds the {widest} channels of the widest layer in {base}"
        raise params.fail("train_diffusion.lora_rank", rank, problem)


def _check_said(params: Params, base: Path, said: str | None, process: str) -> None:
    """Raise UserError if nothing says what the model was trained as, or it is said to be another.

    A network looks the same whatever it was trained for.
    """
    if said is not None and said != process:
        raise UserError(
            f"{params.path}: base.trained_as={said}, but diffusion.process={process}; use `dvc exp "
            f"run -S diffusion={said} -S base.pretrained={base} -S base.trained_as={said}`"
        )
    known = find_scheduler(base) or (base.parent / RECORD).is_file()
    if said is None and not known:
        raise UserError(
            f"{params.path}: base.pretrained={base} has no {SCHEDULER} beside it, so that nothing "
            f"says what it was trained as; say it with `dvc exp run -S base.pretrained={base} "
            f"-S base.trained_as={process}` (vp, flow or edm, as diffusion.process), or put the "
            "file there"
        )


def check_dinov2(folder: Path, size: int) -> None:
    """Raise UserError unless the folder's config.json is a DINOv2's for images of ``size`` pixels.

    The message names ``evaluate.feature_weights`` or ``evaluate.feature_size``.
    """
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text())
        kind = content.get("model_type") if isinstance(content, dict) else None
        if kind != "dinov2":
            raise ValueError(f"model_type={kind} is not dinov2")
        if (patch := content.get("patch_size", PATCH_SIZE)) not in range(1, MAX_PATCH_SIZE + 1):
            raise ValueError(f"patch_size={patch} is not a whole number from 1 to {MAX_PATCH_SIZE}")
        if (channels := content.get("num_channels", 3)) != 3:
            raise ValueError(f"num_channels={channels} is not the 3 of RGB")
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"evaluate.feature_weights={folder}: not a DINOv2 ({error}); name {DINOV2_FOLDER}"
        ) from None
    if size % patch:
        near = max(size, MIN_SIZE + patch - 1) // patch * patch
        raise UserError(
            f"evaluate.feature_size={size} is not a multiple of {patch}, the patch size of "
            f"{folder}; use one, such as {near}"
        )


def read_record(file: Path) -> dict[str, Any]:
    """All parameters of a training; ``data`` and ``diffusion`` are sections. Or UserError."""
    try:
        content = json.loads(file.read_text())
        trained = content.get("params") if isinstance(content, dict) else None
        if not isinstance(trained, dict):
            raise ValueError("it has no params")
        for section in ("data", "diffusion"):
            if not isinstance(trained.get(section), dict):
                raise ValueError(f"it has no section params.{section}")
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file}: not a record of a training ({error}); remove it") from None
    return trained


def _check_data(
    params: Params, section: str, model: str, file: Path, theirs: Mapping[str, Any]
) -> None:
    """Raise UserError if the image size differs, or the split of the same source."""
    ours = params.section("data", DataParams)
    split = SPLIT if ours.source == theirs.get("source") else ()
    for name in (*split, "image_size"):
        if (our := getattr(ours, name)) != (their := theirs.get(name)):
            raise UserError(
                f"{params.path}: data.{name}={our}, but {model} was trained with {their} "
                f"({file}); set it back, or {section}.pretrained=null to train one"
            )

"""Refuse an imported model that does not suit this run.

A U-Net of another diffusion process predicts another quantity, and a model of another split has
seen images that are held out here. The shapes of the weights show neither, but two files beside
a model do: diffusers writes the process to ``scheduler_config.json``, and data/stage1/export.py
all parameters of a training to ``stage1.json``. A model with neither file is accepted as it is.
A network of image features has to suit ``evaluate.feature_size``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from advloop.core.errors import UserError
from advloop.params.data import AutoencoderParams, DataParams
from advloop.params.diffusion import BETAS, BetaSchedule, DiffusionParams, PredictionType
from advloop.params.evaluation import DINOV2_FOLDER, MIN_SIZE, EvaluateParams
from advloop.params.loader import Params
from advloop.params.training import BaseParams

SCHEDULER = "scheduler_config.json"
RECORD = "stage1.json"
DEFAULTS = {  # of diffusers' schedulers, for values that the file leaves out
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "beta_start": BETAS["linear"][0],
    "beta_end": BETAS["linear"][1],
}
CHOICES = {"beta_schedule": get_args(BetaSchedule), "prediction_type": get_args(PredictionType)}
UNSUPPORTED = ("trained_betas", "rescale_betas_zero_snr", "use_flow_sigmas")  # no such parameter
PATCH_SIZE, MAX_PATCH_SIZE = 14, 256  # of a DINOv2, if its config.json names none
SPLIT = ("val_fraction", "test_fraction", "split_seed")


def check_provenance(params: Params) -> None:
    """Raise UserError if an imported model contradicts this run's parameters."""
    diffusion = params.section("diffusion", DiffusionParams)
    autoencoder = params.section("autoencoder", AutoencoderParams).pretrained
    base = params.section("base", BaseParams).pretrained
    if base:
        check_scheduler(Path(base), diffusion)
    for section, model in (("autoencoder", autoencoder), ("base", base)):
        if not model or not (file := Path(model).parent / RECORD).is_file():
            continue
        trained = _read_record(file)
        _check_data(params, section, model, file, trained["data"])
        if section == "base":
            _check_process(model, file, trained["diffusion"], diffusion)
    evaluate = params.section("evaluate", EvaluateParams)
    if evaluate.features == "dinov2" and evaluate.feature_weights:
        check_dinov2(Path(evaluate.feature_weights), evaluate.feature_size)


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


def check_scheduler(model: Path, ours: DiffusionParams) -> None:
    """Raise UserError if the model's scheduler has another diffusion process than this run.

    model: the path in ``base.pretrained``. The message names the parameter to set.
    """
    if file := find_scheduler(model):
        _check_process(str(model), file, _read_scheduler(file), ours)


def find_scheduler(model: Path) -> Path | None:
    """The scheduler of a pipeline's folder, or of a U-Net in one; None if there is none."""
    folders = (model, model / "scheduler", model.parent / "scheduler", model.parent)
    return next((folder / SCHEDULER for folder in folders if (folder / SCHEDULER).is_file()), None)


def _read_scheduler(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict) or "beta_schedule" not in content:
            raise ValueError("it has no beta_schedule")
        if unsupported := [key for key in UNSUPPORTED if content.get(key)]:
            raise ValueError(f"it sets {unsupported[0]}")
        process = DEFAULTS | content
        for key, choices in CHOICES.items():
            if process[key] not in choices:
                raise ValueError(f"{key}={process[key]} is none of {', '.join(choices)}")
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"{file}: not a diffusion process of this pipeline ({error}); set base.pretrained to "
            "another U-Net, or to null to train one"
        ) from None
    return process


def _read_record(file: Path) -> dict[str, Any]:
    """All parameters of a training; ``data`` and ``diffusion`` are sections for certain."""
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


def _check_process(
    model: str, file: Path, theirs: Mapping[str, Any], ours: DiffusionParams
) -> None:
    """Raise UserError if a value in ``theirs``, named as in DiffusionParams, is not ``ours``.

    A beta of null is the usual one, so that naming the usual one makes no difference. A process
    that ``check_params`` refuses is refused at once, instead of asking for it.
    """
    if _loses_x0(theirs):
        raise UserError(
            f"{file}: {model} predicts epsilon with beta_schedule={theirs['beta_schedule']}, from "
            "which this pipeline cannot sample; set base.pretrained to another U-Net, or to null "
            "to train one"
        )
    theirs = dict(theirs)
    wanted = {name: getattr(ours, name) for name in ("num_train_timesteps", *CHOICES)}
    if ours.beta_schedule == theirs.get("beta_schedule") and (betas := ours.betas()):
        usual = BETAS[ours.beta_schedule]
        for name, our, default in zip(("beta_start", "beta_end"), betas, usual, strict=True):
            wanted[name] = our
            theirs[name] = default if theirs.get(name) is None else theirs[name]
    for name, our in wanted.items():
        if name in theirs and not _same(our, their := theirs[name]):
            raise UserError(
                f"params.yaml: diffusion.{name}={our}, but {model} was trained with {their} "
                f"({file}); set diffusion.{name}={their} in conf/config.yaml, or "
                "base.pretrained=null to train one"
            )


def _loses_x0(theirs: Mapping[str, Any]) -> bool:
    named = {name: theirs[name] for name in DiffusionParams.model_fields if name in theirs}
    try:
        return DiffusionParams.model_validate(named).loses_x0()
    except ValueError:  # no process of this pipeline: one of its values is not ours
        return False


def _same(our: object, their: object) -> bool:
    if isinstance(our, float) and isinstance(their, float):
        return math.isclose(our, their, rel_tol=1e-6)  # float32 or a rounded decimal is the same
    return our == their

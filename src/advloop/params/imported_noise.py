"""The diffusion process that an imported model was trained with, against this run's.

diffusers keeps it beside the U-Net, in ``scheduler_config.json``. A U-Net of another process
predicts another quantity, which shows neither in its shapes nor in an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.params.diffusion import BETAS, DiffusionParams

FILE = "scheduler_config.json"
DEFAULTS = {  # of diffusers' schedulers, where the file leaves a value out
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "beta_start": BETAS["linear"][0],
    "beta_end": BETAS["linear"][1],
}
CHOICES = {
    f.name: f.metadata["choices"] for f in fields(DiffusionParams) if "choices" in f.metadata
}
UNKNOWN = ("trained_betas", "rescale_betas_zero_snr", "use_flow_sigmas")  # nothing expresses these


def find_scheduler(model: Path) -> Path | None:
    """The scheduler of a pipeline's folder, or of a U-Net in one; None where there is none."""
    places = (model, model / "scheduler", model.parent / "scheduler", model.parent)
    return next((place / FILE for place in places if (place / FILE).is_file()), None)


def check_scheduler(model: Path, ours: DiffusionParams) -> None:
    """Raise UserError where the model's scheduler is not this run's diffusion process.

    model: what ``base.pretrained`` names. The message names the parameter to set.
    """
    if (file := find_scheduler(model)) is None:
        return
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict) or "beta_schedule" not in content:
            raise ValueError("no beta_schedule is in it")
        if unknown := [key for key in UNKNOWN if content.get(key)]:
            raise ValueError(f"it sets {unknown[0]}")
        theirs = {key: content.get(key, value) for key, value in DEFAULTS.items()}
        theirs["beta_schedule"] = content["beta_schedule"]
        for key, choices in CHOICES.items():
            if theirs[key] not in choices:
                raise ValueError(f"{key}={theirs[key]} is none of {', '.join(choices)}")
    except (ValueError, OSError, RecursionError, TypeError) as error:
        raise UserError(
            f"{file}: not a diffusion process of this pipeline ({error}); name a U-Net of another "
            "one as base.pretrained, or null to train from scratch"
        ) from None
    check_process(f"{model}", f"{file}", theirs, ours)


def check_process(model: str, file: str, theirs: Mapping[str, Any], ours: DiffusionParams) -> None:
    """Raise UserError where a value in ``theirs``, by its name in DiffusionParams, is not ``ours``.

    Betas count by what they come to, so that null and the usual value are the same.
    """
    found = dict(theirs)
    wanted = {key: getattr(ours, key) for key in ("num_train_timesteps", *CHOICES)}
    if wanted["beta_schedule"] == found["beta_schedule"] and (betas := ours.betas()):
        usual = BETAS[found["beta_schedule"]]
        for key, our, default in zip(("beta_start", "beta_end"), betas, usual, strict=True):
            wanted[key] = our
            found[key] = default if found.get(key) is None else found[key]
    for key, our in wanted.items():
        if key in found and not _same(our, their := found[key]):
            raise UserError(
                f"params.yaml: diffusion.{key}={our}, but {model} was trained with {their} "
                f"({file}); set diffusion.{key}={their} in conf/config.yaml, or "
                "base.pretrained=null to train one"
            )


def _same(our: object, their: object) -> bool:
    if isinstance(our, float) and isinstance(their, float):
        return math.isclose(our, their, rel_tol=1e-6)  # written in another way, or from float32
    return our == their

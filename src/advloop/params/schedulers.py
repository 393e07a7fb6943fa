"""The diffusion process that a model was trained for, as the file of its scheduler says it.

diffusers writes the process to ``scheduler_config.json`` beside a model. A network of another
process predicts another quantity, and the shapes of its weights do not show it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from advloop.core.errors import UserError
from advloop.params.diffusion import (
    BETAS,
    PROCESSES,
    BetaSchedule,
    DiffusionParams,
    PredictionType,
    VariancePreservingParams,
)

SCHEDULER = "scheduler_config.json"
CHOICES = {  # of what is trained; how a model was sampled does not matter
    "vp": {"beta_schedule": get_args(BetaSchedule), "prediction_type": get_args(PredictionType)},
    "flow": {},
    "edm": {"prediction_type": ("epsilon", "v_prediction")},
}
DEFAULTS: dict[str, dict[str, Any]] = {  # of diffusers' schedulers, for what a file leaves out
    "vp": {
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "beta_start": BETAS["linear"][0],
        "beta_end": BETAS["linear"][1],
        "zero_terminal_snr": False,
    },
    "flow": {"num_train_timesteps": 1000, "shift": 1.0},
    "edm": {
        "prediction_type": "epsilon",
        "sigma_data": 0.5,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "rho": 7.0,
    },
}
NAMES = {"rescale_betas_zero_snr": "zero_terminal_snr", "flow_shift": "shift"}  # ours are clearer
UNSUPPORTED = {  # settings that no parameter expresses
    "vp": ("trained_betas",),
    "flow": ("invert_sigmas",),
    "edm": (),
}
COMPARED = {  # what a network is bound to; the rest of a process may differ from its training
    "vp": ("num_train_timesteps", "beta_schedule", "prediction_type", "zero_terminal_snr"),
    "flow": ("num_train_timesteps",),
    "edm": ("prediction_type", "sigma_data"),
}


def find_scheduler(model: Path) -> Path | None:
    """The scheduler of a pipeline's folder, or of a network in one; None if there is none."""
    folders = (model, model / "scheduler", model.parent / "scheduler", model.parent)
    return next((folder / SCHEDULER for folder in folders if (folder / SCHEDULER).is_file()), None)


def read_scheduler(file: Path) -> dict[str, Any]:
    """``process`` and the values of section ``diffusion`` in a scheduler's file; or UserError."""
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
        return _values(content)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"{file}: not a diffusion process of this pipeline ({error}); set base.pretrained to "
            "another model, or to null to train one"
        ) from None


def _values(content: Mapping[str, Any]) -> dict[str, Any]:
    name, prediction = str(content.get("_class_name", "")), content.get("prediction_type")
    if name.startswith("EDM"):
        process = "edm"
    elif (
        name.startswith("FlowMatch")
        or prediction == "flow_prediction"
        or content.get("use_flow_sigmas")
    ):
        process = "flow"
    elif "beta_schedule" in content:
        process = "vp"
    else:
        named = f"{name} has" if name else "it has"
        raise ValueError(f"{named} no beta_schedule and is neither a flow nor EDM")
    if unsupported := [key for key in UNSUPPORTED[process] if content.get(key)]:
        raise ValueError(f"it sets {unsupported[0]}")
    renamed = {NAMES.get(key, key): value for key, value in content.items()}
    known = PROCESSES[process].model_fields
    given = {key: value for key, value in renamed.items() if key in known and key != "process"}
    values = {"process": process, **DEFAULTS[process], **given}
    for key, choices in CHOICES[process].items():
        if values[key] not in choices:
            raise ValueError(f"{key}={values[key]} is none of {', '.join(choices)}")
    return values


def check_scheduler(model: Path, ours: DiffusionParams) -> None:
    """Raise UserError if the model's scheduler has another diffusion process than this run.

    model: the path in ``base.pretrained``. The message names all parameters to set.
    """
    if file := find_scheduler(model):
        check_process(str(model), file, read_scheduler(file), ours)


def check_process(model: str, file: Path, theirs: Mapping[str, Any], ours: DiffusionParams) -> None:
    """Raise UserError if a value in ``theirs``, named as in section ``diffusion``, is not ``ours``.

    A beta of null is the usual one, so that naming the usual one makes no difference. A process
    that ``check_params`` refuses is refused at once, instead of asking for it.
    """
    if _loses_x0(theirs):
        zero = theirs.get("zero_terminal_snr")
        end = "rescale_betas_zero_snr" if zero else f"beta_schedule={theirs['beta_schedule']}"
        raise UserError(
            f"{file}: {model} predicts epsilon with {end}, from "
            "which this pipeline cannot sample; set base.pretrained to another model, or to null "
            "to train one"
        )
    process = theirs.get("process", "vp")
    if process != ours.process:
        meaningless = {"process"}
        if theirs.get("beta_schedule") not in BETAS:
            meaningless |= {"beta_start", "beta_end"}
        values = {name: value for name, value in theirs.items() if name not in meaningless}
        options = ["diffusion=" + process, f"base.pretrained={model}"]
        options += [f"diffusion.{name}={_text(value)}" for name, value in values.items()]
        raise UserError(
            f"params.yaml: diffusion.process={ours.process}, but {model} was trained as {process} "
            f"({file}); use `dvc exp run {' '.join(f'-S {option}' for option in options)}`, or "
            "base.pretrained=null to train one"
        )
    wanted, found = _compared(ours, theirs)
    other = [name for name, our in wanted.items() if name in found and not _same(our, found[name])]
    if other:
        said = ", ".join(f"diffusion.{name}={_text(wanted[name])}" for name in other)
        fixes = [f"diffusion.{name}={_text(found[name])}" for name in other]
        trained = ", ".join(f"{name}={_text(found[name])}" for name in other)
        raise UserError(
            f"params.yaml: {said}, but {model} was trained with {trained} ({file}); set "
            f"{', '.join(fixes)} in conf/config.yaml, or by "
            f"`dvc exp run {' '.join(f'-S {fix}' for fix in fixes)}`; or base.pretrained=null to "
            "train one"
        )


def _compared(
    ours: DiffusionParams, theirs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of both that have to agree, by name."""
    wanted = {name: getattr(ours, name) for name in COMPARED[ours.process]}
    found = dict(theirs)
    if isinstance(ours, VariancePreservingParams):
        same_schedule = ours.beta_schedule == theirs.get("beta_schedule")
        if same_schedule and (betas := ours.betas()):
            usual = BETAS[ours.beta_schedule]
            for name, our, default in zip(("beta_start", "beta_end"), betas, usual, strict=True):
                wanted[name] = our
                found[name] = default if theirs.get(name) is None else theirs[name]
    return wanted, found


def _loses_x0(theirs: Mapping[str, Any]) -> bool:
    known = {"process": "vp", **theirs}
    named = {name: known[name] for name in VariancePreservingParams.model_fields if name in known}
    try:
        return VariancePreservingParams.model_validate(named).loses_x0()
    except ValueError:  # another process, or one of its values is not ours
        return False


def _same(our: object, their: object) -> bool:
    if isinstance(our, float) and isinstance(their, float):
        return math.isclose(our, their, rel_tol=1e-6)  # float32 or a rounded decimal is the same
    return our == their


def _text(value: object) -> str:
    """As YAML has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)

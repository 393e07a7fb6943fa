"""The checks of params.yaml: each value by itself, and those that must agree."""

from __future__ import annotations

import difflib
from typing import Any

from advloop.core.errors import UserError
from advloop.params.diffusion import (
    DiffusionParams,
    EdmParams,
    VariancePreservingParams,
    read_diffusion,
)
from advloop.params.loader import Params
from advloop.params.network_checks import check_networks
from advloop.params.paths import PATHS, path_problem
from advloop.params.round_checks import check_rounds
from advloop.params.run import VALUES
from advloop.params.sections import KEYS, SECTIONS, Sections
from advloop.params.training import TrainingParams


def check_params(params: Params) -> None:
    """Raise UserError if a value is unknown, missing, out of range or contradicts another."""
    for key in map(str, params.content):
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]}?; " if close else ""
            raise UserError(
                f"{params.path}: {key} is not a parameter; {hint}correct it in conf/ if it is "
                "there, and run `make params`"
            )
    for name, kind in VALUES.items():
        params.value(name, kind)
    loaded: dict[str, Any] = {name: params.section(name, cls) for name, cls in SECTIONS.items()}
    sections = Sections(diffusion=read_diffusion(params), **loaded)
    _check_paths(params)
    _check_value_range(params, sections)
    check_networks(params, sections)
    _check_steps(params, sections)
    _check_process(params, sections.diffusion)
    _check_warmup(params, sections)
    check_rounds(params, sections)
    _check_features(params, sections)


def _check_paths(params: Params) -> None:
    for key, optional in PATHS.items():
        if problem := path_problem(value := params.at(key), optional):
            raise params.fail(key, value, problem)


def _check_value_range(params: Params, sections: Sections) -> None:
    values = sections.data.value_range
    if values is not None and (len(values) != 2 or values[0] >= values[1]):
        raise params.fail("data.value_range", values, "must be [black, white], black lower")


def _check_steps(params: Params, sections: Sections) -> None:
    limit = sections.diffusion.num_train_timesteps
    for key, steps in (
        ("generate.num_inference_steps", sections.generate.num_inference_steps),
        ("evaluate.num_inference_steps", sections.evaluate.num_inference_steps),
        ("evaluate.base_num_inference_steps", sections.evaluate.base_num_inference_steps),
        ("train_diffusion.preview_steps", sections.train_diffusion.preview_steps),
    ):
        if steps > limit:
            raise params.fail(key, steps, f"exceeds the {limit} training timesteps")


def _check_process(params: Params, process: DiffusionParams) -> None:
    if isinstance(process, VariancePreservingParams):
        _check_betas(params, process)
        _check_prediction(params, process)
    elif isinstance(process, EdmParams) and process.sigma_min >= process.sigma_max:
        problem = f"must be below diffusion.sigma_max={process.sigma_max}"
        raise params.fail("diffusion.sigma_min", process.sigma_min, problem)


def _check_betas(params: Params, process: VariancePreservingParams) -> None:
    betas = process.betas()
    for name, value in (("beta_start", process.beta_start), ("beta_end", process.beta_end)):
        if value is not None and betas is None:
            problem = f"has no meaning in {process.beta_schedule}; use null"
            raise params.fail(f"diffusion.{name}", value, problem)
    if betas is not None and betas[0] > betas[1]:
        raise params.fail("diffusion.beta_start", betas[0], f"exceeds beta_end={betas[1]}")


def _check_prediction(params: Params, process: VariancePreservingParams) -> None:
    if process.loses_x0():
        ending = (
            "zero_terminal_snr=true"
            if process.zero_terminal_snr
            else f"beta_schedule={process.beta_schedule}"
        )
        other = "zero_terminal_snr=false" if process.zero_terminal_snr else "beta_schedule=linear"
        problem = (
            f"tells nothing of an image at the end of diffusion.{ending}, where sampling begins; "
            f"use v_prediction, or diffusion.{other}"
        )
        raise params.fail("diffusion.prediction_type", process.prediction_type, problem)


def _check_warmup(params: Params, sections: Sections) -> None:
    """The training itself checks it where the number of its latents is not known here."""
    trainings: list[tuple[str, TrainingParams]] = [("train_diffusion", sections.train_diffusion)]
    if sections.base.pretrained is None:
        trainings.append(("base", sections.base))
    for name, training in trainings:
        rows = training.samples_per_epoch
        if rows is not None and (problem := training.warmup_problem(rows)):
            raise params.fail(f"{name}.warmup_steps", training.warmup_steps, problem)


def _check_features(params: Params, sections: Sections) -> None:
    if problem := sections.evaluate.weights_problem():
        raise params.fail("evaluate.feature_weights", sections.evaluate.feature_weights, problem)

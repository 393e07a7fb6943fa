"""Stage check_config: refuse a params.yaml that is stale, contradictory or out of range."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from omegaconf import OmegaConf

from advloop.core.errors import UserError
from advloop.core.files import atomic_path
from advloop.objectives import read_objective
from advloop.params.checks import check_params
from advloop.params.imported import check_provenance, network_of
from advloop.params.loader import Params
from advloop.params.paths import PATHS
from advloop.params.training import NEEDS_PEFT
from hydra_plugins.advloop_derived import CONF, derive
from hydra_plugins.conf_files import strays

NAMED = 8  # values to name where params.yaml differs from conf/


def check_derived(params: Params) -> None:
    """Raise UserError where ``derived`` is not what the other values imply."""
    try:
        expected = derive(
            params.at("exp_name"),
            params.at("num_iterations"),
            params.at("objective.uses_discriminator"),
            params.at("train_disc.predicted_fraction"),
            params.at("train_disc.replay_fraction"),
            params.at("autoencoder.pretrained"),
            params.at("base.pretrained"),
            params.at("evaluate.feature_weights"),
            params.at("data.text_encoder"),
        )
    except ValueError as error:
        raise UserError(f"{params.path}: {error}; set it in conf/ and run `make params`") from None
    found = params.unchecked("derived")
    if found == expected:
        return
    if found.get("conf_digest") != expected["conf_digest"]:
        raise UserError(
            f"{params.path}: conf/ has changed since it was composed; run `make params` "
            "(or `dvc exp run`, which composes by itself)"
        )
    num_iterations = params.at("num_iterations")
    keys = sorted({*expected, *found}, key=str)
    stale = [key for key in keys if found.get(key) != expected.get(key)]
    raise UserError(
        f"{params.path}: derived.{stale[0]} does not follow from num_iterations="
        f"{num_iterations} and the other values; edit conf/ instead and run `make params`, "
        f"or run `dvc exp run -S num_iterations={num_iterations}`"
    )


def check_paths(params: Params) -> None:
    """Raise UserError where a path of params.yaml leads nowhere."""
    for key in PATHS:
        path = params.at(key)
        try:
            found = path is None or Path(path).exists()
        except OSError as error:
            raise params.fail(key, path, f"cannot be checked ({error.strerror})") from None
        if not found and Path(f"{path}.dvc").is_file():
            raise UserError(
                f"{params.path}: {key}={path} is not here, but DVC has it; `dvc pull {path}.dvc`"
            )
        if (
            not found
            and (project := os.environ.get("DVC_ROOT"))
            and (Path(project) / path).exists()
        ):
            raise UserError(
                f"{params.path}: {key}={path} is not in this copy of the project, which has only "
                f"what git or DVC tracks; `dvc add {path}` and `git add {path}.dvc .gitignore`, or "
                f"`dvc exp run … --copy-paths {path}`"
            )
        if not found:
            raise params.fail(key, path, "does not exist")


def check_packages(params: Params) -> None:
    """Raise UserError if a parameter needs a package that is not installed."""
    if params.at("train_diffusion.lora_rank") is not None and find_spec("peft") is None:
        raise UserError(f"{params.path}: train_diffusion.lora_rank {NEEDS_PEFT}")


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """``section.name`` to value, without ``derived``."""
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    parts = (flatten(node[key], f"{prefix}{key}.") for key in map(str, node) if key != "derived")
    return {name: value for part in parts for name, value in part.items()}


def objective_file(objective: dict[str, Any]) -> str:
    """The name of the file in conf/objective that sets this objective, as it does.

    Several files may set one objective: ddo_weighted.yaml is ddo with another value.
    """
    for path in sorted((CONF / "objective").glob("*.yaml")):
        content = OmegaConf.load(path)
        if OmegaConf.select(content, "objective", default=content) == objective:
            return path.stem
    return str(objective["name"])


def differences(params: Params) -> list[str]:
    """Where params.yaml differs from conf/ at its choices of files: ``-S``, or edits by hand."""
    from hydra import compose, initialize_config_dir

    content = params.content
    groups = {
        "scale": content["scale"],
        "diffusion": content["diffusion"]["process"],
        "denoiser": content["denoiser"],
        "objective": objective_file(content["objective"]),
    }
    absent = [k for k, v in groups.items() if not (CONF / k / f"{v}.yaml").is_file()]
    if absent:
        return [f"{key}={groups[key]} has no file in conf/{key}" for key in absent]
    with initialize_config_dir(str(CONF), version_base=None):
        composed = compose("config", [f"{key}={value}" for key, value in groups.items()])
    ours, theirs = flatten(content), flatten(OmegaConf.to_container(composed, resolve=True))
    return [
        f"{name}={ours.get(name)} (conf/: {theirs.get(name)})"
        for name in {**theirs, **ours}
        if ours.get(name) != theirs.get(name)
    ]


def base_model(params: Params) -> list[str]:
    """What becomes of the base model where another choice decides it."""
    pretrained, kind = params.at("base.pretrained"), params.at("denoiser")
    if pretrained is None:
        chosen = [
            f"{group}={name}"
            for group, name in (("diffusion", params.at("diffusion.process")), ("denoiser", kind))
            if (file := CONF / group / f"{name}.yaml").is_file()
            and "pretrained" in (OmegaConf.select(OmegaConf.load(file), "base") or {})
        ]
        why = f", as set by {' and '.join(chosen)}" if chosen else ""
        return [f"base.pretrained=null{why}: train_base trains a {kind} from scratch"]
    network = network_of(Path(pretrained))
    if network in (None, kind):
        return []
    return [
        f"denoiser={kind} counts for nothing: base.pretrained={pretrained} is imported, a "
        f"{network}; `-S base.pretrained=null` trains a {kind}"
    ]


def check(params: Params) -> None:
    """Raise UserError for what a run could not mean."""
    check_params(params)
    read_objective(params)
    check_derived(params)
    check_paths(params)
    check_packages(params)
    check_provenance(params)


def main() -> None:
    args = parse_args(__doc__, out=Path)
    params = load_params("check_config")
    check(params)
    if changed := differences(params):
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        print(
            f"differs from conf/ (-S, or edits of params.yaml): {', '.join(changed[:NAMED])}{more}"
        )
    for line in base_model(params):
        print(line)
    for name in strays(CONF):
        print(f"conf/{name}: not used, because no defaults list of conf/ names it; remove it")
    with atomic_path(args.out) as temporary:
        temporary.write_text("params.yaml follows from conf/\n")


if __name__ == "__main__":
    run_stage(main)

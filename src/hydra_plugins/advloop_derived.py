"""The resolvers of conf/. ``derived`` is what dvc.yaml's templates need and YAML cannot compute;
``source_name`` names a run by its data.

Hydra imports every module of the ``hydra_plugins`` namespace, here inside DVC's
own process: import nothing heavy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from advloop.core.errors import UserError, printable
from advloop.core.rounds import BASE, CHECKPOINT, Round, check_exp_name, check_num_iterations
from advloop.params.paths import PATHS, path_problem
from hydra_plugins.conf_files import conf_digest

CONF = Path(__file__).resolve().parents[2] / "conf"
OBJECTIVES = Path(__file__).resolve().parents[1] / "advloop/objectives"
EMBEDDED = {"data/freedoom_plans.zip": "plans"}  # and what a run on it is called
ROUNDS = Path("outputs/rounds")
BASE_MODEL = Path("outputs") / BASE / CHECKPOINT
DATA, LATENTS = "outputs/data", "outputs/latents"
CAPTIONS = "outputs/captions.safetensors"


def source_name(source: Any) -> str:
    """What a run on ``data.source`` is called if nobody names it: a plain file name."""
    text = str(source)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(text).stem).lstrip(".-")[:64]
    return EMBEDDED.get(text) or stem or "run"


def _iteration(
    index: int, predicts: bool, replays: bool, uses_discriminator: bool
) -> dict[str, str]:
    """The paths of iteration ``index`` that depend on the settings.

    DVC's templates know no conditions, but accept a dependency twice: where a stage does not
    need an input, its entry repeats one that the stage has anyway, and its option is empty.
    """
    current, before = Round(ROUNDS, index), Round(ROUNDS, index - 1)
    discriminator = current.discriminator("best")
    fakes = {"predicted": str(current.fakes), "replay": str(current.fakes)}
    options = []
    if predicts:
        fakes["predicted"] = str(current.predicted)
        options.append(f"--predicted {current.predicted}")
    if replays and index:
        fakes["replay"] = str(before.replay)
        options.append(f"--replay {before.replay}")
    return {
        "model": str(before.checkpoint("best") if index else BASE_MODEL),
        **fakes,
        "fakes_options": " ".join(options),
        "discriminator": str(discriminator if uses_discriminator else current.fakes),
        "discriminator_option": f"--discriminator {discriminator}" if uses_discriminator else "",
    }


def derive(
    exp_name: Any,
    num_iterations: Any,
    uses_discriminator: Any,
    predicted_fraction: Any,
    replay_fraction: Any,
    autoencoder: Any,
    base: Any,
    feature_weights: Any,
    text_encoder: Any,
) -> dict[str, Any]:
    """Everything under ``derived`` in params.yaml.

    exp_name: names published files. num_iterations: a whole number from 1 to 100.
    uses_discriminator: whether train_diffusion needs the discriminator. predicted_fraction,
    replay_fraction: of the discriminator's fakes, what are no fresh samples. autoencoder,
    base, feature_weights, text_encoder: paths of imported models, or None. Raises ValueError on
    anything else.
    """
    check_exp_name(exp_name)
    count = check_num_iterations(num_iterations)
    indices = range(count)
    predicts, replays = bool(predicted_fraction), bool(replay_fraction)
    items = {str(i): _iteration(i, predicts, replays, bool(uses_discriminator)) for i in indices}
    rounds = [Round(ROUNDS, i) for i in indices]

    def chart(files: list[Path], *columns: str) -> dict[str, list[str]]:
        return {str(file): list(columns) for file in files}

    histories = [one.discriminator_history for one in rounds]
    metrics = [one.history for one in rounds]
    return {
        "iterations": items,
        # Stage predict exists only where a discriminator sees one-step predictions.
        "predictions": items if predicts else {},
        "autoencoder_source": autoencoder or DATA,
        "base_source": base or LATENTS,
        "feature_source": feature_weights or "outputs/autoencoder",
        # Stage encode_captions exists only in a run with captions.
        "text_encoders": {"text": {"folder": text_encoder}} if text_encoder else {},
        "text_source": text_encoder or DATA,
        "captions": CAPTIONS if text_encoder else LATENTS,
        "captions_option": f" --captions {CAPTIONS}" if text_encoder else "",
        "plots": {
            "discriminator_loss": chart(histories, "train_loss", "val_loss"),
            "discriminator_accuracy": chart(histories, "train_accuracy", "val_accuracy"),
            "noise_loss": chart(metrics, "noise_loss", "val_noise_loss"),
            "loss": chart(metrics, "loss", "val_loss"),
        },
        "conf_digest": conf_digest(CONF),
    }


def _check(composed: DictConfig) -> None:
    """Raise UserError for what DVC itself would stumble over, as the values of its templates."""
    here, project = Path.cwd(), CONF.parent
    if project in here.parents:  # DVC would compose into a params.yaml of this folder
        name = here.relative_to(project).as_posix()
        raise UserError(f"{name}/ is not the project's folder; cd {project}, and run it there")
    for key, optional in PATHS.items():
        value = OmegaConf.select(composed, key)
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if problem := path_problem(plain, optional):
            shown = "null" if plain is None else plain
            raise UserError(f"{key}={shown} {problem}; {_set(key)}")
    objective = OmegaConf.select(composed, "objective.name")
    known = sorted(path.stem for path in OBJECTIVES.glob("[a-z]*.py"))  # a dependency, too
    if objective not in known:
        problem = f"must be one of {', '.join(known)}"
        raise UserError(f"objective.name={objective} {problem}; {_set('objective')}")


def _set(key: str) -> str:
    return f"set it in conf/, or with `dvc exp run -S {key}=…`"


def _resolve(*args: Any, _root_: DictConfig) -> DictConfig:
    try:
        _check(_root_)
        return OmegaConf.create(derive(*args))
    except UserError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"{error}; {_set(str(error).partition('=')[0])}"
    # OmegaConf and DVC would make several lines of any Exception, and call it unexpected.
    raise SystemExit(f"error: {printable(problem)}")


OmegaConf.register_new_resolver("source_name", source_name, replace=True)
OmegaConf.register_new_resolver("derived", _resolve, replace=True)

"""The cells of a comparison: arms, seeds, and the digest that names a cell's experiment."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import yaml
from omegaconf import DictConfig, OmegaConf

import project
from advloop.core.errors import UserError
from advloop.objectives import recipe_of
from comparison import CONTROL, EQUAL_COMPUTE
from project import git

PREFIX = "compare-"


@dataclass(frozen=True)
class Arm:
    name: str
    objective: str
    epochs: int | None  # None: the objective's own
    evaluations: float  # of the network, in one step
    settings: tuple[str, ...] = ()  # what the plan changes, as Hydra overrides

    def overrides(self, seed: int) -> list[str]:
        changed = [] if self.epochs is None else [f"train_diffusion.epochs={self.epochs}"]
        return [f"objective={self.objective}", f"seed={seed}", *self.settings, *changed]


@dataclass(frozen=True)
class Cell:
    arm: Arm
    seed: int
    name: str


def compose(arm: Arm, seed: int) -> DictConfig:
    """The parameters that DVC will compose for a cell."""
    from hydra import compose, initialize_config_dir

    import hydra_plugins.advloop_derived  # noqa: F401  (registers the resolver)

    with initialize_config_dir(str(project.ROOT / "conf"), version_base=None):
        return compose("config", arm.overrides(seed))


def code_and_data(params: DictConfig) -> str:
    """Git's hashes of the code, data and locked packages that the scores of a run follow from."""
    stages = yaml.safe_load((project.ROOT / "dvc.yaml").read_text())["stages"].values()
    name = params.objective.name
    deps = {
        dep.replace("${objective.name}", name)
        for stage in stages
        for dep in stage.get("do", stage)["deps"]
    }
    paths = {"dvc.yaml", "uv.lock", *(dep for dep in deps if dep.startswith(("src/", "stages/")))}
    for key in ("data.source", "autoencoder.pretrained", "base.pretrained"):
        path = OmegaConf.select(params, key)
        if path is not None and not Path(path).is_absolute():
            paths |= {path, f"{path}.dvc"}
    return git("ls-tree", "-r", "HEAD", "--", *sorted(paths))


def cell(arm: Arm, seed: int) -> Cell:
    params = compose(arm, seed)
    values = OmegaConf.to_container(params, resolve=True)
    assert isinstance(values, dict)
    values.pop("derived")  # follows from the others, and digests the files of all objectives
    matters = json.dumps(values, sort_keys=True) + code_and_data(params)
    digest = hashlib.sha256(matters.encode()).hexdigest()[:8]
    return Cell(arm, seed, f"{PREFIX}{arm.name}-{seed}-{digest}")


def objectives_of(asked: str) -> list[str]:
    """The names in ``asked``; UserError if git tracks no such file in conf/objective/."""
    found = [Path(path).stem for path in git("ls-files", "conf/objective/*.yaml").splitlines()]
    chosen = list(dict.fromkeys(asked.split(",")))
    for name in chosen:
        if name not in found:
            raise UserError(f"--objectives: no {name} in conf/objective/ ({', '.join(found)})")
    if CONTROL not in chosen:
        raise UserError(f"--objectives: needs {CONTROL}, which the others are compared with")
    return chosen


def seeds_of(asked: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", asked):
        raise UserError(f"--seeds {asked}: must be whole numbers with commas between them")
    return sorted({int(seed) for seed in asked.split(",")})


def _evaluations(objective: str) -> float:
    """Network passes in a step of what a file of conf/objective sets; UserError if none does."""
    path = project.ROOT / f"conf/objective/{objective}.yaml"
    if not path.is_file():
        raise UserError(
            f"{objective}: there is no {path.relative_to(project.ROOT)}; name one that is"
        )
    content = OmegaConf.load(path)
    name = OmegaConf.select(content, "objective.name") or OmegaConf.select(content, "name")
    return float(recipe_of(name).evaluations)


def arms_of(
    objectives: Sequence[str], settings: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[Arm]:
    """One arm an objective; if any costs more than the control, also that of equal compute.

    settings: Hydra overrides by objective; the control of equal compute has those of the control.
    """
    arms = [
        Arm(name, name, None, _evaluations(name), tuple(settings.get(name, ())))
        for name in objectives
    ]
    costs = _costs(arms)
    if max(costs.values()) > costs[CONTROL]:
        control = arms[objectives.index(CONTROL)]
        epochs = compose(control, 0).train_diffusion.epochs
        more = equal_compute_epochs(epochs, costs)
        arms.append(replace(control, name=EQUAL_COMPUTE, epochs=more))
    return arms


def _costs(arms: Sequence[Arm]) -> dict[str, float]:
    """Network evaluations of latents in an iteration, by arm, in a unit that all share.

    UserError if one arm trains on all training latents an epoch and another on a number of them.
    """
    training = {arm.name: compose(arm, 0).train_diffusion for arm in arms}
    samples = {name: own.samples_per_epoch for name, own in training.items()}
    whole = [name for name, count in samples.items() if count is None]
    if whole and len(whole) < len(arms):
        raise UserError(
            f"{whole[0]}: train_diffusion.samples_per_epoch is null, but a number in others, so "
            "that no equal compute can be given; set it for all in plan.yaml's settings"
        )
    return {
        arm.name: arm.evaluations * training[arm.name].epochs * (samples[arm.name] or 1)
        for arm in arms
    }


def equal_compute_epochs(epochs: int, evaluations: Mapping[str, float]) -> int:
    """Epochs in which the control evaluates the network at least as often as the costliest arm.

    epochs: those of the control; evaluations: in an iteration, by objective with the control.
    """
    factor = max(evaluations.values()) / evaluations[CONTROL]
    return math.ceil(round(epochs * factor, 6))  # 10 * (4.2 / 3) is 14.000000000000002


def order_of_cells(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Seed by seed, each seed beginning with another arm.

    The first cell of a seed runs the stages that the others then take from DVC's run-cache. No arm
    pays for that twice before every arm has paid once.
    """
    cells = []
    for k, seed in enumerate(seeds):
        turn = k % len(arms)
        cells += [(arm, seed) for arm in (*arms[turn:], *arms[:turn])]
    return cells

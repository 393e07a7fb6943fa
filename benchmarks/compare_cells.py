"""The cells of a comparison: arms, seeds, and the digest that names a cell's experiment."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import compare_paths
import yaml
from omegaconf import DictConfig, OmegaConf

from advloop.comparison import CONTROL, EQUAL_COMPUTE, equal_compute_epochs
from advloop.core.errors import UserError
from compare_git import git

PREFIX = "compare-"


@dataclass(frozen=True)
class Arm:
    name: str
    objective: str
    epochs: int | None  # None: the objective's own
    evaluations: float  # of the network, a step

    def overrides(self, seed: int) -> list[str]:
        changed = [] if self.epochs is None else [f"train_diffusion.epochs={self.epochs}"]
        return [f"objective={self.objective}", f"seed={seed}", *changed]


@dataclass(frozen=True)
class Cell:
    arm: Arm
    seed: int
    name: str


def compose(arm: Arm, seed: int) -> DictConfig:
    """The parameters that DVC will compose for a cell."""
    from hydra import compose, initialize_config_dir

    import hydra_plugins.advloop_derived  # noqa: F401  (registers the resolver)

    with initialize_config_dir(str(compare_paths.ROOT / "conf"), version_base=None):
        return compose("config", arm.overrides(seed))


def code_and_data(params: DictConfig) -> str:
    """Git's names of the contents that a run's figures follow from.

    What dvc.yaml names, and the versions of what is installed.
    """
    stages = yaml.safe_load((compare_paths.ROOT / "dvc.yaml").read_text())["stages"].values()
    deps = {dep for stage in stages for dep in stage.get("do", stage)["deps"]}
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
    values.pop("derived")  # follows from the others, and holds a digest of every objective's file
    matters = json.dumps(values, sort_keys=True) + code_and_data(params)
    digest = hashlib.sha256(matters.encode()).hexdigest()[:8]
    return Cell(arm, seed, f"{PREFIX}{arm.name}-{seed}-{digest}")


def objectives_of(asked: str | None) -> list[str]:
    """Those of git's conf/objective/, or the asked ones of them."""
    found = [Path(path).stem for path in git("ls-files", "conf/objective/*.yaml").splitlines()]
    chosen = sorted(found) if asked is None else list(dict.fromkeys(asked.split(",")))
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


def arms_of(objectives: Sequence[str]) -> list[Arm]:
    from advloop.objectives.registry import OBJECTIVES

    for name in objectives:
        if name not in OBJECTIVES:
            raise UserError(f"{name}: not in OBJECTIVES of src/advloop/objectives/registry.py")
    costs = {name: float(OBJECTIVES[name].evaluations) for name in objectives}
    arms = [Arm(name, name, None, cost) for name, cost in costs.items()]
    if max(costs.values()) > costs[CONTROL]:
        epochs = compose(arms[objectives.index(CONTROL)], 0).train_diffusion.epochs
        more = equal_compute_epochs(epochs, costs)
        arms.append(Arm(EQUAL_COMPUTE, CONTROL, more, costs[CONTROL]))
    return arms

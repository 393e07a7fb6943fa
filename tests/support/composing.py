"""conf/, composed as a user does it."""

from __future__ import annotations

from pathlib import Path

from conftest import REPO
from dvc.utils.hydra import compose_and_dump

from advloop.params.loader import Params

CONF = REPO / "conf"
SCALES = sorted(path.stem for path in (CONF / "scale").glob("*.yaml"))
OBJECTIVES = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
PROCESSES = sorted(path.stem for path in (CONF / "diffusion").glob("*.yaml"))


def compose(target: Path, *overrides: str, conf: Path = CONF) -> Params:
    """Compose a conf/ as `make params` and `dvc exp run -S` do."""
    compose_and_dump(str(target), str(conf), None, "config", str(REPO / "src"), list(overrides))
    return Params.load(target)

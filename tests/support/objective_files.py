"""The objectives of conf/objective/, as ``-S objective=FILE`` chooses them."""

from __future__ import annotations

from typing import Any

from conftest import REPO
from omegaconf import OmegaConf

from advloop.objectives import recipe_of

FILES = sorted(path.stem for path in (REPO / "conf/objective").glob("*.yaml"))


def objective_params(file: str, **changes: Any) -> Any:
    """The parameters in a file, checked by the schema of the objective that it names."""
    content = OmegaConf.load(REPO / f"conf/objective/{file}.yaml")
    values = OmegaConf.to_container(content.get("objective", content), resolve=True)
    return recipe_of(values["name"]).params(**values | changes)

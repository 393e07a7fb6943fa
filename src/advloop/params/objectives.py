"""Parameters of each objective; the section ``objective`` holds those of the one it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advloop.core.errors import UserError
from advloop.params.loader import Params, choice, number


@dataclass
class NoneParams:
    name: str = choice("none")

    @property
    def weight(self) -> float:
        return 0.0


@dataclass
class SeedParams:
    name: str = choice("seed")
    weight: float = number(0)  # of discriminator_loss beside noise_loss


@dataclass
class X0Params:
    name: str = choice("x0")
    weight: float = number(0)
    min_alpha_bar: float = number(0, 1)  # the discriminator judges no prediction below it
    max_gradient_ratio: float = number(0, open_low=True)  # adversarial over noise gradient
    ramp_steps: int = number(0)  # optimizer steps until the weight is whole


@dataclass
class DdoParams:
    name: str = choice("ddo", "ddo_weighted")
    weight: float = number(0)
    alpha: float = number(0)  # of the fakes beside the reals
    beta: float = number(0, open_low=True)  # factor of the log-likelihood ratio


OBJECTIVES: dict[str, type] = {
    "none": NoneParams,
    "seed": SeedParams,
    "x0": X0Params,
    "ddo": DdoParams,
    "ddo_weighted": DdoParams,
}


def read_objective(params: Params) -> Any:
    """The section ``objective`` as the dataclass of its name; UserError if there is none."""
    section = params.section_node("objective")
    if "name" not in section:
        raise UserError(f"{params.path}: objective.name is missing; run `make params`")
    if not isinstance(name := section["name"], str):
        raise params.fail("objective.name", name, "must be of type str")
    if name not in OBJECTIVES:
        raise params.fail("objective.name", name, f"must be one of {', '.join(OBJECTIVES)}")
    return params.section("objective", OBJECTIVES[name])

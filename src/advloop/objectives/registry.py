"""Objectives by name.

To add one: write a module with a function of the type ``Objective`` (or one that makes it from
parameters), list it in OBJECTIVES, its parameters in ``params.objectives``, and give it a file
in conf/objective/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advloop.objectives.base import Objective
from advloop.objectives.ddo import make_ddo
from advloop.objectives.none import noise_only
from advloop.objectives.seed import seed_objective
from advloop.objectives.weighting import AdaptiveWeight
from advloop.objectives.x0 import make_x0


@dataclass(frozen=True)
class Recipe:
    """How an objective is made, and what it costs.

    make: its parameters (a dataclass of ``params.objectives``) -> Objective.
    adaptive: its parameters -> what sets its weight at each step, for one whose weight changes.
    against_reference: it needs generated latents and the frozen starting model.
    evaluations: network passes over one batch in an optimizer step, a backward pass counted
    as two forward ones; the discriminator's are left out.
    """

    make: Callable[[Any], Objective]
    adaptive: Callable[[Any], AdaptiveWeight] | None = None
    against_reference: bool = False
    evaluations: int = 3


OBJECTIVES: dict[str, Recipe] = {
    "none": Recipe(lambda _: noise_only),
    "seed": Recipe(lambda _: seed_objective),
    "x0": Recipe(
        lambda p: make_x0(p.min_alpha_bar),
        adaptive=lambda p: AdaptiveWeight(p.weight, p.max_gradient_ratio, p.ramp_steps),
    ),
    "ddo": Recipe(lambda p: make_ddo(p.alpha, p.beta), against_reference=True, evaluations=8),
    "ddo_weighted": Recipe(
        lambda p: make_ddo(p.alpha, p.beta, weighted=True), against_reference=True, evaluations=8
    ),
}

"""Objectives by name.

To add one, write a module with a function of the type ``Objective`` and name it here, in the
choices of ``ObjectiveParams.name`` and in conf/objective/.
"""

from __future__ import annotations

from advloop.objectives.base import Objective
from advloop.objectives.none import noise_only
from advloop.objectives.seed import seed_objective

OBJECTIVES: dict[str, Objective] = {"none": noise_only, "seed": seed_objective}

EVALUATIONS: dict[str, float] = {"none": 3, "seed": 3}
"""Network evaluations of one optimiser step by objective: the forward pass of one batch is 1, the
backward pass 2; the discriminator, small beside the network, is neglected."""

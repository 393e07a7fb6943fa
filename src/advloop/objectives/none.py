"""Objective none: the noise loss alone, the equal-steps control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from advloop.objectives import Recipe
from advloop.params.section import Section

if TYPE_CHECKING:
    from advloop.diffusion.batch import Objective


class NoneParams(Section):
    name: Literal["none"]
    uses_discriminator: Literal[False]

    @property
    def weight(self) -> float:
        return 0.0


def make_none(_: NoneParams) -> Objective:
    """loss = noise_loss."""
    from advloop.diffusion.batch import noise_only

    return noise_only


RECIPE = Recipe(
    NoneParams,
    make_none,
    adaptive=None,
    against_reference=False,
    evaluations=3,
    trains_on="reals",
    merge=None,
    hands_on="best_epoch",
)

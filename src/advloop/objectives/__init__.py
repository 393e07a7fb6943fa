"""What train_diffusion minimises: one module per objective, found by its name.

To add one: a module with its parameters, its formula and a RECIPE, as in seed.py, and a file in
conf/objective/. check_config reads the parameters in a process without torch, so these modules
import torch inside their functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ValidationError

from advloop.core.errors import UserError
from advloop.params.loader import Params
from advloop.params.section import Section

if TYPE_CHECKING:
    import torch

    from advloop.diffusion.batch import Objective, Terms
    from advloop.models.denoiser import Denoiser


class Weighting(Protocol):
    """Sets the weight of an objective's term at each step, from the terms of earlier steps."""

    def current(self) -> float | torch.Tensor: ...

    def update(self, terms: Terms) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """How an objective is made from its parameters, and what it needs.

    Without defaults: stages depend on the objective's own module, and not on this one.
    params: their schema. It has a ``name``, a ``weight`` and ``uses_discriminator``: whether the
    formula needs the round's discriminator, which train_diffusion loads and depends on only then.
    make: parameters -> Objective.
    adaptive: parameters -> Weighting, if the weight changes from step to step.
    against_reference: whether it needs generated latents and the frozen starting model.
    evaluations: network passes over one batch in an optimizer step, a backward pass counted
    as two forward passes; the discriminator's are left out.
    trains_on: which clean latents are noised and predicted: the training set's, or the round's
    generated ones, but for those that are held out.
    merge: parameters, starting model, averaged tuned weights -> the model that is validated,
    sampled and handed on; None: the averaged weights themselves.
    hands_on: the epoch that the round hands on: the one with the lowest val_loss, or the last.
    """

    params: type[Section]
    make: Callable[[Any], Objective]
    adaptive: Callable[[Any], Weighting] | None
    against_reference: bool
    evaluations: int
    trains_on: Literal["reals", "fakes"]
    merge: Callable[[Any, Denoiser, Denoiser], Denoiser] | None
    hands_on: Literal["best_epoch", "last_epoch"]


@dataclass(frozen=True)
class SamplerRecipe(Recipe):
    """An objective with a term for what the sampler draws, beside that of the batch.

    train_diffusion lets the model play against the round's discriminator, which goes on learning
    (``training.opponent``). Its parameters have the fields that the play reads.
    judge: logits of reals (B,) and of samples (B,) -> the term, a scalar, and what to report.
    """

    judge: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, Terms]]


def objective_names() -> list[str]:
    """Every objective's name, sorted."""
    modules = iter_modules(__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def recipe_of(name: str) -> Recipe:
    """The recipe in the module of that name."""
    recipe: Recipe = import_module(f"{__name__}.{name}").RECIPE
    return recipe


def read_objective(params: Params) -> Any:
    """The section ``objective``, by the schema of the objective it names; UserError if unknown."""
    section = params.unchecked("objective")
    if "name" not in section:
        raise UserError(f"{params.path}: objective.name is missing; run `make params`")
    name, known = section["name"], objective_names()
    if not isinstance(name, str) or name not in known:
        problem = f"must be one of {', '.join(known)}"
        raise params.fail("objective.name", name, problem, option="objective")
    cls = recipe_of(name).params
    try:
        return params.section("objective", cls)
    except UserError as error:
        fitting = [other for other in known if _fits(other, section)]
        if not fitting or name in fitting:
            raise
        whole = (
            f"the values are those of {fitting[0]}; choose an objective as a whole, with "
            f"`dvc exp run -S objective={name}` or in the defaults of conf/config.yaml"
        )
        if set(section) != set(cls.model_fields):
            raise UserError(f"{params.path}: objective.name={name}, but {whole}") from None
        # Either the name or the value is not meant.
        raise UserError(f"{error}; or {whole}") from None


def _fits(name: str, section: dict[str, Any]) -> bool:
    """Whether the section's values are those of the objective ``name``."""
    try:
        recipe_of(name).params.model_validate({**section, "name": name})
    except ValidationError:
        return False
    return True

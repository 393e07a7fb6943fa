"""Top-level values of params.yaml, which belong to no section."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from advloop.core.errors import UserError
from advloop.core.rounds import MOST_ITERATIONS, check_exp_name
from advloop.params.loader import Params

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Kind = Literal["unet", "dit"]
VALUES: dict[str, Any] = {  # the type of each
    "scale": str,
    "num_iterations": Annotated[int, Field(ge=1, le=MOST_ITERATIONS)],
    "seed": Annotated[int, Field(ge=0, le=2**31 - 1)],
    "precision": Precision,
    "denoiser": Kind,
    "exp_name": str,
}


def read_seed(params: Params) -> int:
    """Root of every random draw, an integer in [0, 2^31)."""
    seed: int = params.value("seed", VALUES["seed"])
    return seed


def read_num_iterations(params: Params) -> int:
    """Number of rounds of generate, encode, train_disc and train_diffusion, in [1, 100]."""
    count: int = params.value("num_iterations", VALUES["num_iterations"])
    return count


def read_precision(params: Params) -> str:
    """``fp32``, or ``bf16`` for bfloat16 autocast over fp32 weights."""
    precision: str = params.value("precision", VALUES["precision"])
    return precision


def read_denoiser(params: Params) -> str:
    """``unet`` or ``dit``: the section that describes a network to train from scratch."""
    kind: str = params.value("denoiser", VALUES["denoiser"])
    return kind


def read_exp_name(params: Params) -> str:
    """The experiment's name, which becomes part of file names."""
    try:
        return check_exp_name(params.value("exp_name", VALUES["exp_name"]))
    except ValueError as error:
        raise UserError(f"{params.path}: {error}; set it in conf/ and run `make params`") from None

"""Top-level values that belong to no section."""

from __future__ import annotations

from typing import Any

from advloop.core.errors import UserError
from advloop.core.naming import check_exp_name
from advloop.params.loader import Params

PRECISIONS = ("fp32", "bf16")
# The type of each value that is no text of any form, and what it may be.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "num_iterations": ("int", {"low": 1, "high": 1000, "open_low": False}),
    "seed": ("int", {"low": 0, "high": 2**31 - 1, "open_low": False}),
    "precision": ("str", {"choices": PRECISIONS}),
}


def read_seed(params: Params) -> int:
    """Root of every random draw, an integer in [0, 2^31)."""
    return params.value("seed", int, RULES["seed"][1])


def read_num_iterations(params: Params) -> int:
    """Number of rounds of generate, encode, train_disc, train_diffusion; at least 1."""
    return params.value("num_iterations", int, RULES["num_iterations"][1])


def read_precision(params: Params) -> str:
    """``fp32``, or ``bf16`` for bfloat16 autocast over fp32 weights."""
    return params.value("precision", str, RULES["precision"][1])


def read_exp_name(params: Params) -> str:
    """The experiment's name, which becomes part of file names."""
    try:
        return check_exp_name(params.value("exp_name", str))
    except ValueError as error:
        raise UserError(f"{params.path}: {error}; set it in conf/ and run `make params`") from None

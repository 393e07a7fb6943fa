"""Names that become part of file names. Standard library only: DVC's Hydra plugin imports it."""

from __future__ import annotations

import re

EXP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def check_exp_name(exp_name: object) -> str:
    """The name, fit to be part of a file name; ValueError otherwise."""
    name = str(exp_name)
    if not EXP_NAME.fullmatch(name):
        raise ValueError(
            f"exp_name={name} may hold up to 64 letters, digits, '.', '_' and '-', "
            "and must not start with '.' or '-'"
        )
    return name

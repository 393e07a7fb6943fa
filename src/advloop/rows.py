"""Read the JSON files of metrics that one stage hands to the next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.core.io import read_json
from advloop.selection import Rows, iteration_of, kid_names

LARGEST = 1e300  # JSON's whole numbers may exceed any float
NAME = re.compile(r"reals|autoencoder|base|iter_[0-9]{1,9}")


def read_figures(path: Path) -> dict[str, float]:
    """Finite numbers by name; UserError where the file holds anything else."""
    content = _mapping(path, "it", read_json(path))
    for name, value in content.items():
        _check_number(path, name, value)
    return content


def read_rows(path: Path, *needed: str) -> Rows:
    """What stages evaluate_reals and evaluate write: a row of every model so far.

    Raises UserError where the row of a ``needed`` name is missing, and where a row is not
    what ``make_row`` makes: finite numbers, one KID among them, and ``seeds``.
    """
    content = _mapping(path, "it", read_json(path))
    for name in (*needed, *content):
        if name not in content or not NAME.fullmatch(name):
            problem = "is no row" if name in content else "has no row"
            raise UserError(
                f"{path}: {name} {problem} of an evaluation; remake it with `dvc repro`"
            )
        _check_row(path, name, _mapping(path, name, content[name]))
    return content


def _mapping(path: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise UserError(f"{path}: {name} must hold metrics by name, not a {kind}; run `dvc repro`")
    return value


def _check_number(path: Path, name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -LARGEST < value < LARGEST:
        raise UserError(f"{path}: {name}={value} must be a finite number; run `dvc repro`")


def _check_row(path: Path, name: str, row: Mapping[str, Any]) -> None:
    seeds = _mapping(path, f"{name}.seeds", row.get("seeds"))
    for metric, value in row.items():
        if metric != "seeds":
            _check_number(path, f"{name}.{metric}", value)
    for metric, values in seeds.items():
        for value in values if isinstance(values, list) else [values]:
            _check_number(path, f"{name}.seeds.{metric}", value)
    kids = kid_names(row)
    if len(kids) != 1 or f"tune_{kids[0]}" not in row:
        raise UserError(f"{path}: {name} has {len(kids)} KID columns, not 1; run `dvc repro`")
    if iteration_of(name) is not None:
        for metric in (kids[0], "critic_gap"):
            values = seeds.get(metric)
            if not isinstance(values, list) or len(values) < 2:
                raise UserError(f"{path}: {name} has no {metric} by seed; run `dvc repro`")
            if not {metric, f"{metric}_ci95"} <= set(row):
                raise UserError(f"{path}: {name} has no {metric} with interval; run `dvc repro`")

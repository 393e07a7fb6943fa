"""What the sub-folders of an image say of it: its group and, where images have one, its class."""

from __future__ import annotations

from collections.abc import Set
from pathlib import PurePosixPath

from advloop.core.errors import UserError


def folder_group(file: str, below_class: bool) -> str:
    """The sub-folder of a file; the file itself where it lies in none, ``below_class`` or at all.

    A class is no group: it could stand in one split alone.
    """
    parents = PurePosixPath(file).parts[:-1]
    return "/".join(parents) if len(parents) > below_class else file


def folder_class(where: str, file: str) -> str:
    first, *below = PurePosixPath(file).parts
    if not below:
        raise UserError(
            f"{where}: {file} lies in no sub-folder, which data.classes=folders takes for its "
            "class; move it into one"
        )
    return first


def require_two(where: str, classes: str, names: Set[str]) -> None:
    """Raise UserError where ``names`` of classes are fewer than two; classes: ``data.classes``."""
    if len(names) < 2:
        raise UserError(
            f"{where}: data.classes={classes}, but all images are of class {min(names)}; add "
            "another, or set data.classes=none"
        )

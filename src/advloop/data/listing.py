"""The images of a source with their groups, splits and classes.

They come from a manifest if the source has one: ``manifest.csv`` (columns file, group and,
optionally, split and class), or the embedded archive's ``index.json``. Otherwise the folder that
holds an image is its group, and an image outside any folder is a group of its own.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from advloop.core.errors import UNPRINTABLE, UserError
from advloop.data.dataset import SPLITS
from advloop.data.images import FORMATS
from advloop.data.sources import Source


@dataclass(frozen=True)
class Item:
    """One image: its path inside the source and its group.

    split: as the source gives it, or None. class_name: None if images have no classes.
    """

    file: str
    group: str
    split: str | None = None
    class_name: str | None = None


def find_manifest(files: Sequence[str]) -> str | None:
    """The file that lists the images, or None if folder names decide."""
    return next((name for name in ("manifest.csv", "index.json") if name in files), None)


def list_items(source: Source, classes: str = "none") -> list[Item]:
    """Every image of the source, sorted by file.

    classes: none, folders or manifest, as ``DataParams.classes``. Raises UserError if there is no
    image, and if any row of a manifest is wrong: ``data.on_error=skip`` covers images alone.
    """
    files, with_class = source.files(), classes == "manifest"
    manifest = find_manifest(files)
    path = source.name if manifest is None else f"{source.name}/{manifest}"
    if manifest == "manifest.csv":
        items = _read_csv(path, source.read(manifest), with_class)
    elif manifest == "index.json":
        items = _read_index(path, source.read(manifest), with_class)
    elif with_class:
        raise UserError(f"{path}: data.classes=manifest, but there is no manifest.csv; add it")
    else:
        images = [f for f in files if PurePosixPath(f).suffix.lower() in FORMATS]
        items = [Item(f, _folder_group(f, classes == "folders")) for f in images]
    if not items:
        raise UserError(f"{path}: holds no image ({', '.join(FORMATS)}); add some")
    known = set(files)
    for item in items:
        if item.file not in known:
            raise UserError(
                f"{path}: names {item.file}, which is not there; correct or remove the row"
            )
    file, count = Counter(item.file for item in items).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: holds {file} twice; keep one")
    if classes == "folders":
        items = [replace(item, class_name=_folder_class(path, item.file)) for item in items]
    names = {str(item.class_name) for item in items}
    if classes != "none" and len(names) < 2:
        raise UserError(
            f"{path}: data.classes={classes}, but all images are of class {min(names)}; add "
            "another, or set data.classes=none"
        )
    return sorted(items, key=lambda item: item.file)


def _folder_group(file: str, below_class: bool) -> str:
    """The folder of a file, or the file itself if it is in none.

    below_class: the first folder is the class. It is no group, because a group is in one split
    only and every split needs every class.
    """
    parents = PurePosixPath(file).parts[:-1]
    return "/".join(parents) if len(parents) > below_class else file


def _folder_class(path: str, file: str) -> str:
    first, *below = PurePosixPath(file).parts
    if not below:
        raise UserError(
            f"{path}: {file} is in no sub-folder, and data.classes=folders takes its class from "
            "there; move it into one"
        )
    return first


def _read_csv(path: str, content: bytes, with_class: bool) -> list[Item]:
    items = []
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        columns = rows.fieldnames or []
        for column in ("file", "group", *["class"] * with_class):
            if column not in columns:
                raise UserError(f"{path}: column {column} is missing; add it to the first line")
        for row in rows:
            items.append(_make_item(path, {**row, "split": row.get("split") or None}, with_class))
            if any(row.get(None, ())):  # cells beyond the last column
                raise UserError(
                    f"{path}: the row of {row['file']} has more cells than columns; quote names "
                    "that hold a comma"
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a UTF-8 CSV file ({error}); save it as one") from None
    return items


def _read_index(path: str, content: bytes, with_class: bool) -> list[Item]:
    try:
        rows: list[dict[str, Any]] = json.loads(content)
        return [
            _make_item(path, {**row, "group": f"{row['wad']}_{row['map']}"}, with_class)
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a list of {{file, wad, map, split}} ({error}); correct it"
        ) from None


def _make_item(path: str, row: Mapping[str, object], with_class: bool) -> Item:
    """The item of a manifest's row; UserError if a value is missing or cannot be used."""
    file, group, split, name = row["file"], row["group"], row.get("split"), row.get("class")
    if not isinstance(file, str) or not file:
        raise UserError(f"{path}: file is empty; name an image")
    if not isinstance(group, str) or not group:
        raise UserError(f"{path}: group of {file} is empty; name one")
    if UNPRINTABLE.search(group):
        raise UserError(f"{path}: group {group} holds a control character; rename it")
    if split is not None and split not in SPLITS:
        raise UserError(
            f"{path}: split={split} of {file} must be train, val, tune or test; correct it"
        )
    if with_class and (not isinstance(name, str) or not name or UNPRINTABLE.search(name)):
        raise UserError(f"{path}: class of {file} is {name!r}; name one, or set data.classes=none")
    given = str(split) if split is not None else None
    return Item(file, group, given, str(name) if with_class else None)

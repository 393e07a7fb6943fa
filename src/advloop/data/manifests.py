"""The files that list a source's images: ``manifest.csv``, or the embedded archive's index."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from advloop.core.errors import UNPRINTABLE, UserError
from advloop.data.dataset import SPLITS
from advloop.data.sources import Source

CSV, INDEX = "manifest.csv", "index.json"
LONGEST_CAPTION = 2000  # characters; no text encoder reads as many
INDEX_KEYS = (b'"wad"', b'"map"')  # of the embedded archive's index, and hardly of another one


@dataclass(frozen=True)
class Item:
    """One image: its path inside the source and its group.

    split: as the source gives it, or None. class_name, caption: None if images have none.
    """

    file: str
    group: str
    split: str | None = None
    class_name: str | None = None
    caption: str | None = None


@lru_cache(maxsize=1)  # several ask for it, and index.json may be large
def find_manifest(source: Source) -> str | None:
    """The file that lists the images, or None if folder names decide.

    Any other file is called ``index.json``, too. UserError if ``manifest.csv`` is spelt otherwise.
    """
    files = source.files()
    if CSV in files:
        return CSV
    if other := next((file for file in files if file.casefold() == CSV), None):
        raise UserError(f"{source.name}/{other}: is read as {CSV} alone; rename it")
    if INDEX in files:
        content = source.read(INDEX)
        if all(key in content for key in INDEX_KEYS):
            return INDEX
    return None


def read_manifest(
    source: Source, manifest: str, with_class: bool, captions: str | None = None
) -> list[Item]:
    """The rows of the file that ``find_manifest`` found, in order, or UserError.

    captions: the column that holds them, or None.
    """
    path, content = f"{source.name}/{manifest}", source.read(manifest)
    return (_read_csv if manifest == CSV else _read_index)(path, content, with_class, captions)


def _remedy(column: str, columns: Sequence[str]) -> str:
    """What to do about a first line in which ``column`` is not one of ``columns``."""
    if len(columns) == 1 and (other := next((mark for mark in ";\t" if mark in columns[0]), None)):
        return f"separate columns by commas, not by {'tabs' if other != ';' else 'semicolons'}"
    if len(columns) == 1 and "," in columns[0]:
        return "take the quotes off the first line as a whole"
    resembling = next((one for one in columns if one.strip().casefold() == column), None)
    return f"rename {resembling!r} in the first line" if resembling else "add it to the first line"


def _read_csv(path: str, content: bytes, with_class: bool, captions: str | None) -> list[Item]:
    items, line = [], 1  # the line of the file in which a row begins
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = csv.DictReader(text, strict=True)
        columns = rows.fieldnames or []
        for column in ("file", "group", *["class"] * with_class, *([captions] if captions else [])):
            if column not in columns:
                remedy = _remedy(column, list(columns))
                raise UserError(f"{path}: column {column} is missing; {remedy}")
        if twice := next((name for name in columns if list(columns).count(name) > 1), None):
            raise UserError(f"{path}: column {twice} is there twice; keep one of them")
        line = rows.line_num + 1
        for row in rows:
            if rows.line_num > line and (broken := _broken(row.values())) is not None:
                raise UserError(
                    f"{path}: line {line}: {broken!r} goes on in the next line, as if its quote "
                    "were not closed; close it, or use names without line breaks"
                )
            values = {**row, "split": row.get("split") or None}
            items.append(_make_item(path, values, with_class, captions))
            if any(row.get(None, ())):  # cells beyond the last column
                raise UserError(
                    f"{path}: the row of {row['file']} has more cells than columns; quote names "
                    "that hold a comma"
                )
            line = rows.line_num + 1
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 CSV file ({error}); save it as one") from None
    except csv.Error as error:
        raise UserError(
            f"{path}: the row in line {line} is no CSV ({error}); close the quotes around names, "
            "and double those in them"
        ) from None
    return items


def _broken(cells: Iterable[object]) -> str | None:
    """The first line of a cell that has several, or None."""
    found = (cell.splitlines()[0] for cell in cells if isinstance(cell, str) and "\n" in cell)
    return next(found, None)


def _read_index(path: str, content: bytes, with_class: bool, captions: str | None) -> list[Item]:
    try:
        rows: list[dict[str, Any]] = json.loads(content)
        return [
            _make_item(path, {**row, "group": f"{row['wad']}_{row['map']}"}, with_class, captions)
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a list of {{file, wad, map, split}} ({error}); correct or rename it"
        ) from None


def _make_item(
    path: str, row: Mapping[str, object], with_class: bool, captions: str | None
) -> Item:
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
    caption = _caption(path, file, captions, row.get(captions)) if captions else None
    return Item(file, group, given, str(name) if with_class else None, caption)


def _caption(path: str, file: str, column: str, text: object) -> str:
    """The caption in a cell, without outer blanks; UserError if it cannot be used."""
    if not isinstance(text, str) or not text.strip():
        raise UserError(
            f"{path}: {column} of {file} is empty; describe the image there, or set "
            "data.captions=null"
        )
    if found := UNPRINTABLE.search(text):
        raise UserError(
            f"{path}: {column} of {file} holds {found[0]!a}, a line break or another "
            "control character; remove it"
        )
    if len(text) > LONGEST_CAPTION:
        raise UserError(
            f"{path}: {column} of {file} has more than {LONGEST_CAPTION} characters, "
            f"{len(text)}; shorten it"
        )
    return text.strip()

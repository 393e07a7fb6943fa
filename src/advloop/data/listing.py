"""The images of a source with their groups, splits and classes.

They come from a manifest if the source has one: ``manifest.csv`` (columns file, group and,
optionally, split and class), or the embedded archive's ``index.json``; see ``manifests``. Otherwise
the folder that holds an image is its group, and an image outside any folder is a group of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from advloop.core.errors import UserError, printable
from advloop.data.images import FORMATS
from advloop.data.manifests import Item, find_manifest, read_manifest
from advloop.data.names import compose, fold, resembling
from advloop.data.sources import Source

MOST_NAMES = 5  # in one line
EXAMPLE = 80  # characters of a caption


def list_items(source: Source, classes: str = "none", captions: str | None = None) -> list[Item]:
    """Every image of the source, sorted by file.

    classes: none, folders or manifest, as ``DataParams.classes``. captions: the column of a
    manifest that holds them, as ``DataParams.captions``. Raises UserError if there is no image, if
    any row of a manifest is wrong (``data.on_error=skip`` covers images alone), and if two groups
    have nearly one name.
    """
    files = source.files()
    manifest = find_manifest(source)
    path = source.name if manifest is None else f"{source.name}/{manifest}"
    if manifest:
        rows = read_manifest(source, manifest, classes == "manifest", captions)
        items = _find_files(path, rows, files)
    elif classes == "manifest":
        raise UserError(f"{path}: data.classes=manifest, but there is no manifest.csv; add it")
    elif captions:
        raise UserError(
            f"{path}: data.captions={captions} is a column of manifest.csv, which is not there; "
            "add it"
        )
    else:
        items = _from_folders(path, files, classes == "folders")
    if not items:
        others = f", only {_kinds(files)}" if files and manifest is None else ""
        raise UserError(f"{path}: holds no image ({', '.join(FORMATS)}){others}; add some")
    file, count = Counter(item.file for item in items).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: holds {file} twice; keep one")
    if classes == "folders":
        items = [replace(item, class_name=_folder_class(path, item.file)) for item in items]
    _check_groups(path, items, apart=classes == "folders")
    names = {str(item.class_name) for item in items}
    if classes != "none" and len(names) < 2:
        raise UserError(
            f"{path}: data.classes={classes}, but all images are of class {min(names)}; add "
            "another, or set data.classes=none"
        )
    return sorted(items, key=lambda item: item.file)


def _find_files(path: str, rows: Sequence[Item], files: Sequence[str]) -> list[Item]:
    """Rows of a manifest with the names that the files have; UserError if one is not there."""
    known = {compose(file): file for file in files} | {file: file for file in files}
    absent = [row.file for row in rows if row.file not in known and compose(row.file) not in known]
    if absent:
        name = absent[0]
        shown = name if name == name.strip() else repr(name)
        more = f" (nor are {len(absent) - 1} more)" if len(absent) > 1 else ""
        meant = resembling(name, files)
        hint = f"; did you mean {meant}? Correct" if meant else "; correct"
        raise UserError(f"{path}: names {shown}, which is not there{more}{hint} or remove the row")
    return [replace(row, file=known.get(row.file) or known[compose(row.file)]) for row in rows]


def _is_image(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in FORMATS


def _from_folders(path: str, files: Sequence[str], below_class: bool) -> list[Item]:
    """The images, each in the group of its folder, or in its own if it is in no folder.

    below_class: the first folder is the class. It is no group, because a group is in one split
    only and every split needs every class.
    """
    items = []
    for file in filter(_is_image, files):
        if "\\" in file:
            raise UserError(
                f"{path}: {file} has a backslash in its name, as if an archive made on Windows had "
                "been unpacked without its folders; use the archive itself, or unpack it again"
            )
        parents = PurePosixPath(file).parts[:-1]
        items.append(Item(file, "/".join(parents) if len(parents) > below_class else file))
    return items


def _folder_class(path: str, file: str) -> str:
    first, *below = PurePosixPath(file).parts
    if not below:
        raise UserError(
            f"{path}: {file} is in no sub-folder, and data.classes=folders takes its class from "
            "there; move it into one"
        )
    return first


def _check_groups(path: str, items: Sequence[Item], *, apart: bool) -> None:
    """UserError if two groups look like one, which different splits would share.

    apart: groups of different classes are different, however alike.
    """
    first: dict[tuple[str | None, str], str] = {}
    for group, name in sorted(
        {(i.group, i.class_name if apart else None) for i in items if i.group != i.file},
        key=lambda pair: pair[0],
    ):
        other = first.setdefault((name, fold(group)), group)
        if other != group:
            show = ascii if compose(other) == compose(group) else repr
            raise UserError(
                f"{path}: the groups {show(other)} and {show(group)} differ in letter case, blanks "
                "or the form of Unicode alone; give them one name, or names that differ more"
            )


def describe_groups(source: Source, items: Sequence[Item]) -> list[str]:
    """A line about images whose folder says nothing of what belongs together, if there are any."""
    alone = [item for item in items if item.group == item.file]
    if find_manifest(source) or not alone:
        return []
    where = "sub-folder of their class" if items[0].class_name else "sub-folder"
    return [
        f"images in no {where}: {len(alone)} of {len(items)}; each is a group of its own, so that "
        "two of one thing may be in train and in test; sub-folders or a manifest.csv join them"
    ]


def describe_captions(items: Sequence[Item]) -> list[str]:
    """A line on captions, if images have them."""
    captions = [item.caption for item in items if item.caption is not None]
    if not captions:
        return []
    shortest, longest = min(map(len, captions)), max(map(len, captions))
    return [
        f"captions: {len(captions)}, of them {len(set(captions))} different; {shortest} to "
        f"{longest} characters, such as {captions[0][:EXAMPLE]!r}"
    ]


def describe_unused(source: Source, items: Sequence[Item]) -> list[str]:
    """A line that says how many files of which kinds are not used, if there are any."""
    manifest = find_manifest(source)
    used = {manifest, *(item.file for item in items)}
    if not (other := [file for file in source.files() if file not in used]):
        return []
    images = sum(map(_is_image, other))
    why = f"{', '.join(dict.fromkeys(FORMATS.values()))} are read"
    why = f"images that {manifest} does not name: {images}" if images else why
    return [f"not used: {_kinds(other)} ({why}): {some_names(other)}"]


def _kinds(files: Collection[str]) -> str:
    """How many files have which ending, the most frequent first."""
    counts = Counter(PurePosixPath(file).suffix.lower() or "without an ending" for file in files)
    kinds = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    more = f" and {len(kinds) - MOST_NAMES} other kinds" if len(kinds) > MOST_NAMES else ""
    return printable(", ".join(f"{count} {kind}" for kind, count in kinds[:MOST_NAMES])) + more


def some_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(printable, names[:MOST_NAMES])) + more

"""Which files of conf/ Hydra can compose, and their digest.

`make doctor` imports this, too, before anything is installed: the standard library alone, and the
syntax of Python 3.8. Hydra imports it with every module of this namespace.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT_CONFIG = "config.yaml"


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files that Hydra can compose, and those with YAML's endings that it never reads.

    A file in a sub-folder may be chosen with ``-S group=name``. One beside config.yaml takes part
    only if a defaults list names it, as in ``- name``. Hidden files are an editor's.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".yaml", ".yml") and path.name[0] != "." and path.is_file()
    ]
    used = [path for path in found if path.suffix == ".yaml" and path.parent != folder]
    beside = [path for path in found if path.suffix == ".yaml" and path.parent == folder]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in used + beside]
    for path in beside:
        entry = (
            rf"^\s*-\s+(optional\s+)?[\"']?/?{re.escape(path.stem)}(\.yaml)?[\"']?(@\S+)?\s*(#.*)?$"
        )
        if path.name == ROOT_CONFIG or any(re.search(entry, text, re.M) for text in texts):
            used.append(path)
    return sorted(used), [path for path in found if path not in used]


def strays(folder: Path) -> list[str]:
    """The names below ``folder`` of files that look like settings and that Hydra never reads."""
    return [path.relative_to(folder).as_posix() for path in _files(folder)[1]]


def composed(folder: Path) -> list[Path]:
    """The files below ``folder`` that Hydra can compose, sorted."""
    return _files(folder)[0]


def conf_digest(folder: Path) -> str:
    """16 hexadecimal digits of every file that Hydra can compose, by relative path and content.

    Line ends do not count.
    """
    digest = hashlib.sha256()
    for path in composed(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:16]

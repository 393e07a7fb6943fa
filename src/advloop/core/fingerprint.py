"""What a result follows from, in one short name: inputs, parameters, code."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LENGTH = 16  # hexadecimal digits: 64 bits, for a handful of names


def fingerprint(facts: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """Hexadecimal digits of plain ``facts`` and of the contents of ``files``, folders included.

    A file counts by the name that it is given, not by where it lies: so the same project in
    another place has the same fingerprint. What does not exist counts as absent.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode())
    for name, given in sorted(files.items()):
        inside = sorted(given.rglob("*")) if given.is_dir() else [given]
        for path in inside:
            if path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                place = path.relative_to(given).as_posix()
                digest.update(f"\0{name}\0{place}\0{content}".encode())
    return digest.hexdigest()[:LENGTH]


def loaded_modules(root: Path, *folders: str) -> dict[str, Path]:
    """The files of this process's modules in ``folders`` of ``root``, by their path below it."""
    root = root.resolve()
    files = {
        Path(file).resolve()
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None))
    }
    return {
        file.relative_to(root).as_posix(): file
        for file in files
        if any(file.is_relative_to(root / folder) for folder in folders)
    }

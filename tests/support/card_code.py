"""Run the code of a model card as a reader would."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def code_blocks(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", card, re.S | re.M)


def run_code(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The variable ``images``, as uint8 (N, S, S, 3), after running the code in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # like a Python started there
    _forget(monkeypatch)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    _forget(monkeypatch)
    return np.stack([np.asarray(image) for image in names["images"]])


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of an exported folder: another one has others of the same names."""
    for name in ("pipeline", "patch_autoencoder"):
        monkeypatch.delitem(sys.modules, name, raising=False)

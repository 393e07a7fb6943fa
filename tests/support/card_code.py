"""Run the code of a model card as a reader would."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest


def code_blocks(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", card, re.S | re.M)


def run_code(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The variable ``images`` after running the code in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # like a Python started there
    monkeypatch.delitem(sys.modules, "patch_autoencoder", raising=False)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    monkeypatch.delitem(sys.modules, "patch_autoencoder", raising=False)
    return names["images"]

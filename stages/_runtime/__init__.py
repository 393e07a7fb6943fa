"""What stage scripts share: arguments, errors, processes, snapshots. No stage declares it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# numpy starts threads for its linear algebra, which hardly anything here uses: a third of a light
# stage's start. torch has its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# DVC may run an experiment in a temporary copy of the project: it must import that copy's library.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))


def explain_import(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """One line instead of a traceback where a package is missing or another version."""
    if not issubclass(kind, ImportError):
        sys.__excepthook__(kind, error, trace)
        return
    version = ".".join(map(str, sys.version_info[:3]))
    print(
        f"error: {sys.executable} (Python {version}) is not the project's: {error}; run "
        "`source .venv/bin/activate`, or `make setup` if there is no .venv",
        file=sys.stderr,
    )


sys.excepthook = explain_import

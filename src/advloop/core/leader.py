"""Which of the processes that share a stage's work speaks and writes; known without torch."""

from __future__ import annotations

import os


def leads() -> bool:
    """Whether this is the only process or the first of several (RANK, as torchrun sets it)."""
    return os.environ.get("RANK", "0") == "0"

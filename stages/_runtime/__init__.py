"""What stage scripts share: arguments, errors, processes, snapshots. No stage declares it."""

from __future__ import annotations

import sys
from pathlib import Path

# DVC may run an experiment in a temporary copy of the project: it must import that copy's library.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

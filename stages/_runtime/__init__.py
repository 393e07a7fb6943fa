"""What stage scripts share: arguments, errors, processes, snapshots. No stage declares it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# numpy starts threads for its linear algebra, which hardly anything here uses: a third of a light
# stage's start. torch has its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# DVC may run an experiment in a temporary copy of the project: it must import that copy's library.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

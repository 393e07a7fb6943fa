"""The project that is compared: its folder, git, DVC, and what `make compare` remembers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dvc.exceptions import DvcException
from dvc.repo import Repo

from advloop.core.errors import UserError
from advloop.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
# Start times, interrupted cells, a queueing under way: of this clone, as its experiments are.
STATE = ".dvc/tmp/compare.json"
ATTEMPTS, PAUSE = 5, 2.0  # to read DVC's state; seconds between them
T = TypeVar("T")


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the project; UserError with its reason if it fails."""
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise UserError(f"`{' '.join(command)}`: {reason}")
    return done


def git(*args: str) -> str:
    return run("git", *args).stdout


def ask_dvc(question: Callable[[Repo], T]) -> T:
    """What DVC answers, in this process.

    A `dvc` command costs a second of CPU, which a question every few seconds would take from the
    cells. DVC fails if a task of its queue ends while it reads the queue, so it is asked again.
    """
    attempts = 0
    while True:
        try:
            with Repo(str(ROOT), _wait_for_lock=True) as repo:  # as `dvc --wait-for-lock` does
                return question(repo)
        except (DvcException, OSError) as error:
            attempts += 1
            if attempts == ATTEMPTS:
                raise UserError(f"DVC: {error}; see `dvc queue status`") from error
        time.sleep(PAUSE)


def read_state() -> dict[str, Any]:
    empty: dict[str, Any] = {"events": [], "seconds": {}, "interrupted": []}
    path = ROOT / STATE
    return empty | (read_json(path) if path.exists() else {})


def remember(**changes: Any) -> None:
    write_json(ROOT / STATE, read_state() | changes)

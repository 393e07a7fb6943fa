"""What a check finds, and how it runs other programs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """level: ok, warning (it works, but …) or wrong. mend: the command that fixes it."""

    level: str
    text: str
    mend: str = ""


def ok(text: str) -> Finding:
    return Finding("ok", text)


def warning(text: str, mend: str) -> Finding:
    return Finding("warning", text, mend)


def wrong(text: str, mend: str) -> Finding:
    return Finding("wrong", text, mend)


class Answer(NamedTuple):
    """status: the exit status, or None if the program does not start or does not end."""

    status: int | None
    out: str
    error: str

    @property
    def reason(self) -> str:
        """The last line on standard error, which usually says what is wrong."""
        lines = self.error.strip().splitlines()
        return " ".join(lines[-1].split())[:200] if lines else f"exit status {self.status}"


def ask(root: Path, *command: str, seconds: float = 20) -> Answer:
    """Run a program in ``root`` for a limited time; raises nothing."""
    env = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"no answer in {seconds:g} s")
    except OSError as error:
        return Answer(None, "", error.strerror or str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


def read(path: Path) -> str:
    """The text of a file; empty if there is no file or it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def writable(folder: Path) -> bool:
    """Whether a file can be made in the folder."""
    try:
        with tempfile.NamedTemporaryFile(dir=str(folder)):
            return True
    except OSError:
        return False


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"

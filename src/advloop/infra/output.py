"""What is printed may get lost, but never costs a result."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any


class Printer:
    """A text stream that a reader who has gone, or a full disk, does not stop.

    What cannot be written is dropped from then on. Everything else is the stream's own.
    """

    def __init__(self, stream: TextIOWrapper) -> None:
        stream.reconfigure(errors="backslashreplace")  # as Python does for standard error
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Let the stream write to nowhere, which also empties its buffer when Python ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_safely() -> None:
    """From now on, nothing that this process prints raises an error.

    Characters that the terminal's encoding lacks are printed as escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):  # neither a test's text nor closed (None)
            setattr(sys, name, Printer(stream))

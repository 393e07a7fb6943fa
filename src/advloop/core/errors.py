"""What is written for users: the one exception, and how numbers are said."""

from __future__ import annotations

import re

# Anything that would end the line, control the terminal or is not a character: control characters,
# line and paragraph separators, lone surrogates (bytes of a file name that are not UTF-8).
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every UNPRINTABLE character escaped."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def counted(count: int, noun: str) -> str:
    """``1 round``, ``2 rounds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class UserError(Exception):
    """Bad input, described in one line that names the file, the value and the fix.

    Stages print the message without a traceback and exit with status 1. Messages may quote names
    and values as they are: this class escapes what is UNPRINTABLE.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

"""The one exception that a user is meant to read."""

from __future__ import annotations

import re

# What would end the line, drive the terminal or be no character: control characters, line and
# paragraph separators, halves of surrogate pairs (bytes of a file name that are not UTF-8).
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with what is UNPRINTABLE in it escaped."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(Exception):
    """Bad input. Its message is one line that names the file, the value and the fix.

    Stages print it without a traceback and exit with status 1. A message quotes names and
    values as they are: what is UNPRINTABLE in it is escaped here.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

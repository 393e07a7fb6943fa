"""A message for a user is one line whatever it quotes."""

from __future__ import annotations

import pytest

from advloop.core.errors import UserError


@pytest.mark.parametrize(
    ("quoted", "escaped"),
    [
        ("a\nb\r.png", "a\\nb\\r.png"),
        ("\x1b[31m\x00", "\\x1b[31m\\x00"),
        ("a\x85b\u2028c", "a\\x85b\\u2028c"),
        ("\udcff.png", "\\udcff.png"),
        ("größe, 1\u202fPM 日本.png", "größe, 1\u202fPM 日本.png"),
    ],
)
def test_message_is_one_line_that_can_be_printed(quoted: str, escaped: str):
    message = str(UserError(f"{quoted}: not found"))
    assert message == f"{escaped}: not found"
    assert len(message.splitlines()) == 1
    message.encode()

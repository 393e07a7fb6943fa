"""The error that a user sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from advloop.core.errors import UserError


def refusal(action: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message of the UserError that ``action`` raises: one line that names a fix."""
    with pytest.raises(UserError) as caught:
        action(*arguments, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert ";" in message, "no fix is named"
    return message

"""What tests of properties share: bounded random examples, and what a refusal is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings

from advloop.core.errors import UserError


def bounded(examples: int) -> settings:
    """So many examples, drawn from a fixed seed: the same ones everywhere, and none kept."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


def result(read: Callable[[], Any]) -> Any:
    """What ``read`` returns, or None where it refuses in one line; no other exception."""
    try:
        return read()
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return None

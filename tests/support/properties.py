"""For property tests: bounded random examples, and what counts as a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings

from advloop.core.errors import UserError


def bounded(examples: int) -> settings:
    """A number of examples from a fixed seed: the same ones everywhere, and none stored."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


def result(read: Callable[[], Any]) -> Any:
    """What ``read`` returns, or None if it refuses in one line; other exceptions pass through."""
    try:
        return read()
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return None

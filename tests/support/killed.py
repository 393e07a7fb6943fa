"""A stage that dies as soon as a snapshot of it is complete."""

from __future__ import annotations

import pytest

from advloop.infra.snapshots import Snapshots


class Killed(BaseException):
    """Like SIGKILL, it is caught by none of our code."""


def die_after_snapshots(patch: pytest.MonkeyPatch) -> None:
    """From now on, every snapshot that is complete raises Killed."""
    take = Snapshots.take

    def dying_take(self, make):
        take(self, make)
        raise Killed

    patch.setattr(Snapshots, "take", dying_take)

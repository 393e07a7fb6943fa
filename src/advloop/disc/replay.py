"""Fakes of earlier iterations: a buffer that forgets them geometrically."""

from __future__ import annotations

import torch

from advloop.classes import Classes
from advloop.core.runtime import generator
from advloop.disc.gathered import Rows

KEPT = 0.5  # of the buffer, from one iteration to the next


def update_replay(fakes: Rows, earlier: Rows | None, seed: int, iteration: int) -> torch.Tensor:
    """The buffer after ``iteration``: (N, …), as many rows as ``fakes`` (N, …).

    KEPT of it comes from the buffer of the iteration before, the rest from ``fakes``, both
    drawn at random and without repetition; so iteration i - k has a share of 2^-(k + 1), and
    the first one what is left. Without an ``earlier`` buffer it is ``fakes`` in another order.
    """
    stream = generator(seed, "replay", iteration)
    parts = []
    if earlier is not None:
        kept = min(round(KEPT * len(fakes)), len(earlier))
        parts.append(earlier[torch.randperm(len(earlier), generator=stream)[:kept]])
    fresh = len(fakes) - sum(map(len, parts))
    parts.append(fakes[torch.randperm(len(fakes), generator=stream)[:fresh]])
    return torch.cat(parts)


def replay_labels(classes: Classes, count: int, seed: int, iteration: int) -> torch.Tensor:
    """Classes (count,) of the buffer after ``iteration``, of rounds with ``count`` fakes."""
    labels = None
    for index in range(iteration + 1):
        labels = update_replay(classes.of_fakes(count, seed, index), labels, seed, index)
    assert labels is not None
    return labels

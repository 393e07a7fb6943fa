"""The choice of a model must not make the reported figure look better than it is."""

from __future__ import annotations

import numpy as np
import torch

from advloop.evaluation.kid import kernel_distance

MODELS, ROWS, RUNS = 3, 20, 300


def draw(stream: torch.Generator, shift: float = 0.3) -> torch.Tensor:
    return torch.randn(ROWS, 6, generator=stream) + shift


def bias(own_samples: bool) -> tuple[float, float]:
    """What the best of three equal models reports below their mean, and its standard error."""
    stream, found = torch.Generator().manual_seed(0), []
    for _ in range(RUNS):
        tune, test = draw(stream, 0.0), draw(stream, 0.0)
        reported = [draw(stream) for _ in range(MODELS)]
        chosen_by = [draw(stream) for _ in range(MODELS)] if own_samples else reported
        best = int(np.argmin([kernel_distance(one, tune).value for one in chosen_by]))
        values = [kernel_distance(one, test).value for one in reported]
        found.append(values[best] - np.mean(values))
    return float(np.mean(found)), float(np.std(found, ddof=1)) / RUNS**0.5


def test_a_choice_on_the_reported_samples_flatters_and_one_on_samples_of_its_own_does_not():
    flattering, error = bias(own_samples=False)
    assert flattering < -5 * error
    fair, error = bias(own_samples=True)
    assert abs(fair) < 3 * error

"""Which distances between sets of features are measured, and over which sets.

To add one: write ``(fake (M, D), real (N, D)) -> {name: value}`` and list it in METRICS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from advloop.errors import UserError
from advloop.intervals import mean_and_interval
from advloop.kid import kernel_distance
from advloop.neighbours import neighbour_scores
from advloop.params.evaluation import MIN_IMAGES

Metric = Callable[[torch.Tensor, torch.Tensor], dict[str, float]]


def kid(fake: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    return {"kid": kernel_distance(fake, real)}


METRICS: tuple[Metric, ...] = (kid, neighbour_scores)


def measure(samples: Sequence[torch.Tensor], real: torch.Tensor, network: str) -> dict[str, float]:
    """``{metric}_{network}`` and its ``_ci95`` over independent sets of samples.

    samples: at least two (M, D); real: (N, D); the mean over the sets and the half-width of
    its 95 % interval. network names the features. Raises UserError where a set is too small.
    """
    smallest = min(len(part) for part in (*samples, real))
    if smallest < MIN_IMAGES:
        raise UserError(
            f"evaluate: a set of {smallest} images is too small, {MIN_IMAGES} are needed; add "
            "images, raise data.test_fraction, or lower evaluate.num_seeds"
        )
    values: dict[str, list[float]] = {}
    for part in samples:
        for metric in METRICS:
            for name, value in metric(part, real).items():
                values.setdefault(f"{name}_{network}", []).append(value)
    result = {}
    for name, drawn in values.items():
        result[name], result[f"{name}_ci95"] = mean_and_interval(drawn)
    return result

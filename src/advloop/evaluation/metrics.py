"""Which distances between sets of features are measured, and over which sets.

To add one: write ``(fake (M, D), real (N, D)) -> {name: value}`` and list it in METRICS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.evaluation.kid import kernel_distance
from advloop.evaluation.neighbours import neighbour_scores
from advloop.intervals import Seeds, mean_and_interval
from advloop.params.evaluation import MIN_IMAGES

Metric = Callable[[torch.Tensor, torch.Tensor], dict[str, float]]


def kid(fake: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    return {"kid": kernel_distance(fake, real)}


METRICS: tuple[Metric, ...] = (kid, neighbour_scores)


def measure(
    samples: Sequence[torch.Tensor], real: Mapping[str, torch.Tensor], network: str
) -> Seeds:
    """``{metric}_{network}`` on real["test"], ``tune_kid_{network}`` on real["tune"].

    samples: sets of features (M, D), one a sampling seed; real: (N, D) each. network names
    the features. Raises UserError where a set is too small.
    """
    smallest = min(len(part) for part in (*samples, *real.values()))
    if smallest < MIN_IMAGES:
        raise UserError(
            f"evaluate: a set of {smallest} images is too small, {MIN_IMAGES} are needed; add "
            "images, raise data.test_fraction, or lower evaluate.num_seeds"
        )
    widths = {part.shape[1] for part in (*samples, *real.values())}
    if len(widths) > 1:
        raise UserError(
            f"evaluate: features of {' and '.join(map(str, sorted(widths)))} values cannot be "
            "compared; remake those of the reals with `dvc repro evaluate_reals`"
        )
    seeds: Seeds = {}
    for part in samples:
        values = {name: v for metric in METRICS for name, v in metric(part, real["test"]).items()}
        values["tune_kid"] = kernel_distance(part, real["tune"])
        for name, value in values.items():
            seeds.setdefault(f"{name}_{network}", []).append(value)
    return seeds


def measure_classes(
    samples: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    real: torch.Tensor,
    real_labels: torch.Tensor,
    network: str,
) -> Seeds:
    """``class_kid_{network}``: the KID of each class alone, in the mean over the real images.

    It says whether samples are of the class that they were asked for, which the KID of all
    together cannot. samples: features (M, D), and labels (M,), one a sampling seed; real: (N, D)
    with real_labels (N,). Classes with fewer than two rows of either count nowhere; without any
    other class there is no such figure.
    """
    values = []
    for part, own in zip(samples, labels, strict=True):
        total, weight = 0.0, 0
        for label in real_labels.unique().tolist():
            ours, theirs = part[own == label], real[real_labels == label]
            if min(len(ours), len(theirs)) >= 2:
                total += len(theirs) * kernel_distance(ours, theirs)
                weight += len(theirs)
        if not weight:
            return {}
        values.append(total / weight)
    return {f"class_kid_{network}": values}


def make_row(seeds: Seeds, **single: float) -> dict[str, Any]:
    """Mean of each metric, half the width of its 95 % interval as ``_ci95``, and ``seeds``.

    single: figures of which there is but one value. Rounded to six decimals, finer than any
    interval here.
    """
    row: dict[str, Any] = {name: round(value, 6) for name, value in single.items()}
    for name, values in seeds.items():
        for column, value in zip((name, f"{name}_ci95"), mean_and_interval(values), strict=True):
            row[column] = round(value, 6)
    return row | {"seeds": {name: [round(v, 6) for v in values] for name, values in seeds.items()}}


def describe(row: Mapping[str, Any]) -> str:
    """One line of a row: each value, with its interval where it has one."""
    shown = {k: v for k, v in row.items() if k != "seeds" and not k.endswith("_ci95")}
    return ", ".join(
        f"{name}={value}" + (f"±{row[f'{name}_ci95']}" if f"{name}_ci95" in row else "")
        for name, value in shown.items()
    )

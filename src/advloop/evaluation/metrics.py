"""Other metrics of features: for the table, not for a verdict.

Where a model is far from the reals, precision, recall and the others are 0 for it and for garbage
alike. To add a metric, write a module with a ``Metric`` and a function of the features of samples
(M, D) and of real images (N, D), like neighbours.py, and add a line to METRICS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from advloop.core.errors import UserError, counted
from advloop.evaluation import kid, neighbours
from advloop.evaluation.scores import Metric, Score, score_all
from advloop.params.evaluation import MIN_IMAGES

METRICS: Mapping[Metric, Callable[[torch.Tensor, torch.Tensor], float]] = {**neighbours.COMPUTE}
CLASS_KID = Metric("class_kid", "class by class, KID", better="lower")


def require_set(count: int) -> None:
    """UserError if a set of so many images is too small to be measured."""
    if count < MIN_IMAGES:
        raise UserError(
            f"evaluate: a set of {counted(count, 'image')} is too small, {MIN_IMAGES} are needed; "
            "add images, raise data.test_fraction, or lower evaluate.num_seeds"
        )


def measure(samples: Sequence[torch.Tensor], real: torch.Tensor, features: str) -> list[Score]:
    """Every metric of features (M, D), one set for each sampling seed, against real (N, D).

    features: the network's name. UserError if a set is too small, or if their widths differ.
    """
    require_set(min(len(part) for part in (*samples, real)))
    widths = {part.shape[1] for part in (*samples, real)}
    if len(widths) > 1:
        raise UserError(
            f"evaluate: features of {' and '.join(map(str, sorted(widths)))} values cannot be "
            "compared; remake those of the real images with `dvc repro evaluate_base`"
        )
    return score_all(
        {m: [compute(part, real) for part in samples] for m, compute in METRICS.items()}, features
    )


def measure_classes(
    samples: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    real: torch.Tensor,
    real_labels: torch.Tensor,
    features: str,
) -> list[Score]:
    """KID within each class, averaged over the real images.

    Unlike the KID of all images together, it rises if samples belong to other classes than they
    were asked for. samples: features (M, D) with labels (M,), for each sampling seed; real: (N, D)
    with real_labels (N,). Classes with fewer than two rows of either are left out; if none is
    left, so is the score.
    """
    values = []
    for part, own in zip(samples, labels, strict=True):
        total, weight = 0.0, 0
        for label in real_labels.unique().tolist():
            ours, theirs = part[own == label], real[real_labels == label]
            if min(len(ours), len(theirs)) >= 2:
                total += len(theirs) * kid.kernel_distance(ours, theirs).value
                weight += len(theirs)
        if not weight:
            return []
        values.append(total / weight)
    return score_all({CLASS_KID: values}, features)

"""The scores of a run: the only module here that knows how reports/metrics.json names them.

A model of a run is one of ``reals``, ``autoencoder``, ``base``, ``iter_0``, …; each has scores by
name, with the feature network at the end if the metric has one: ``kid_lite0``. docs/results.json
keeps them under these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from advloop.core.rounds import BASE
from advloop.evaluation import metrics as evaluation
from advloop.evaluation import views
from advloop.evaluation.kid import KID
from advloop.evaluation.summary import TITLES

Scores = Mapping[str, Mapping[str, float]]
"""Scores of one run: model to name to value."""
SHARED = TITLES
"""Titles of the models that do not depend on the objective."""
METRICS_FILE, PICTURE_FILE = "reports/metrics.json", "reports/samples.png"


@dataclass(frozen=True)
class Metric:
    """A column for the score of this name or, with ``by_network``, for each network's score."""

    name: str
    title: str
    better: str = ""  # "lower", "higher", or "" if neither is
    by_network: bool = False

    def includes(self, score: str) -> bool:
        if not self.by_network:
            return score == self.name
        return score.startswith(f"{self.name}_") and not score.endswith("_ci95")

    def heading(self, score: str) -> str:
        network = f" ({score.removeprefix(f'{self.name}_')})" if self.by_network else ""
        arrow = {"lower": " ↓", "higher": " ↑", "": ""}[self.better]
        return f"{self.title}{network}{arrow}"


VIEWED = tuple(
    Metric(metric.name, metric.title, metric.better, by_network=metric is KID)
    for metric in views.VIEWS
)
NAMED = (
    *VIEWED,
    Metric("memorisation_ratio", "memorisation ratio"),
    Metric("test_noise_loss", "test noise loss", "lower"),
    Metric("disc_val_accuracy", "D accuracy"),
    Metric("viability_score", "viability"),
    Metric("network_calls", "network calls", "lower"),
)
METRICS = (  # and every other metric of features that the library has
    *NAMED,
    *(
        Metric(metric.name, metric.title, metric.better, by_network=True)
        for metric in evaluation.METRICS
        if metric.name not in {named.name for named in NAMED}
    ),
)


def iteration_of(name: str) -> int | None:
    """The number i of ``iter_i``, -1 of the base model, None of any other name."""
    if name == BASE:
        return -1
    return int(name.removeprefix("iter_")) if name.startswith("iter_") else None


def columns(models: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
    """The scores that any of the models has, in the order of METRICS, and the metric of each."""
    present = sorted({name for scores in models for name in scores})
    return {name: metric for metric in METRICS for name in present if metric.includes(name)}


def compared_scores(metrics: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Scores of METRICS for each single model, from the contents of METRICS_FILE."""
    models = {
        name: {**scores, **metrics["training"].get(name, {})}
        for name, scores in metrics["held_out"].items()
        if name in SHARED or iteration_of(name) is not None
    }
    kept = columns(models.values())
    return {
        model: {name: value for name, value in scores.items() if name in kept}
        for model, scores in models.items()
    }


def model_of(iteration: int) -> str:
    """The model that an iteration made; of -1, the base model."""
    return BASE if iteration == -1 else f"iter_{iteration}"


def iterations_of(models: Iterable[str]) -> list[int]:
    """Numbers of the iterations among some models, in order."""
    numbers = {iteration_of(name) for name in models}
    return sorted(number for number in numbers if number is not None and number >= 0)

"""Objectives compared over training seeds: which runs, and their statistics.

Results are what docs/results.json holds: ``arms`` (name to objective, epochs, steps,
evaluations), ``cells`` (arm to seed to experiment, seconds, rows), ``seeds``, and how they were
made. A row is a model (reals, autoencoder, base, iter_0, …), a run its rows of one arm and seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advloop.intervals import mean_and_interval
from advloop.reporting.report import NAMES
from advloop.selection import Rows, iteration_of

CONTROL = "none"
EQUAL_COMPUTE = "none_equal_compute"


@dataclass(frozen=True)
class Metric:
    """A column: every metric of this name, or with ``prefix`` of a name that begins so."""

    name: str
    title: str
    better: str = ""  # "lower", "higher", or "" where neither is
    prefix: bool = False

    def includes(self, metric: str) -> bool:
        if not self.prefix:
            return metric == self.name
        return metric.startswith(self.name) and not metric.endswith("_ci95")

    def heading(self, metric: str) -> str:
        network = metric.removeprefix(self.name) if self.prefix else ""
        arrow = {"lower": " ↓", "higher": " ↑", "": ""}[self.better]
        return f"{self.title}{f' ({network})' if network else ''}{arrow}"


METRICS = (
    Metric("kid_", "KID", "lower", prefix=True),
    Metric("critic_accuracy", "critic accuracy"),
    Metric("critic_auc", "critic AUC"),
    Metric("critic_gap", "critic gap", "lower"),
    Metric("precision_", "precision", "higher", prefix=True),
    Metric("coverage_", "coverage", "higher", prefix=True),
    Metric("memorisation_ratio", "memorisation ratio"),
    Metric("test_noise_loss", "test noise loss", "lower"),
    Metric("disc_val_accuracy", "D accuracy"),
    Metric("diffusion_val_viability_score", "viability"),
)


@dataclass(frozen=True)
class Estimate:
    """Mean over training seeds, half its 95 % interval (None of a single seed), their number."""

    mean: float
    half: float | None
    count: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes zero."""
        return self.half is not None and abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate | None:
    """None of no values."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None, 1)
    return Estimate(*mean_and_interval(list(values)), len(values))


# --- Which runs ---


def arms_in_order(names: Sequence[str]) -> list[str]:
    """The control, the control of equal compute, then the others by name."""
    first = [name for name in (CONTROL, EQUAL_COMPUTE) if name in names]
    return first + sorted(set(names) - set(first))


def equal_compute_epochs(epochs: int, evaluations: Mapping[str, float]) -> int:
    """Epochs of the control with at least the network evaluations of the costliest objective.

    epochs: of every objective; evaluations: a step's, by objective, the control among them.
    """
    factor = max(evaluations.values()) / evaluations[CONTROL]
    return math.ceil(round(epochs * factor, 6))  # 10 * (4.2 / 3) is 14.000000000000002


def order_of_cells(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Seed by seed, each seed beginning with another arm.

    The first cell of a seed makes what its other cells take from DVC's run-cache, so that no
    arm pays for it more than once in as many seeds as there are arms.
    """
    cells = []
    for k, seed in enumerate(seeds):
        turn = k % len(arms)
        cells += [(arm, seed) for arm in (*arms[turn:], *arms[:turn])]
    return cells


# --- Statistics ---


def kept_rows(metrics: Mapping[str, Rows]) -> dict[str, dict[str, float]]:
    """Of a run's reports/metrics.json, the rows of single models and the metrics shown here."""
    rows = {
        name: {**row, **metrics["training"].get(name, {})}
        for name, row in metrics["held_out"].items()
        if name in NAMES or iteration_of(name) is not None
    }
    names = metric_names(rows.values())
    return {row: {k: v for k, v in values.items() if k in names} for row, values in rows.items()}


def metric_names(rows: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
    """The metrics that any row has, in the order of METRICS."""
    present = sorted({name for row in rows for name in row})
    return {name: metric for metric in METRICS for name in present if metric.includes(name)}


class Comparison:
    """The finished runs of some results, by arm and seed."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.seeds: list[int] = list(results["seeds"])
        self.arms = arms_in_order(list(results["arms"]))
        self.runs: dict[str, dict[int, Rows]] = {
            arm: {int(seed): cell["rows"] for seed, cell in cells.items()}
            for arm, cells in results["cells"].items()
        }
        runs = [run for by_seed in self.runs.values() for run in by_seed.values()]
        self.metrics = metric_names(row for run in runs for row in run.values())
        numbers = {iteration_of(name) for run in runs for name in run}
        self.iterations = sorted(n for n in numbers if n is not None and n >= 0)

    @property
    def last(self) -> str:
        return f"iter_{self.iterations[-1]}"

    def values(self, arm: str, row: str, metric: str) -> dict[int, float]:
        """By seed, of the runs that have this figure."""
        return {
            seed: run[row][metric]
            for seed, run in sorted(self.runs.get(arm, {}).items())
            if metric in run.get(row, {})
        }

    def mean(self, arm: str, row: str, metric: str) -> Estimate | None:
        return estimate(list(self.values(arm, row, metric).values()))

    def shared(self, row: str, metric: str) -> Estimate | None:
        """Of a row that does not depend on the arm: each seed's from any arm that has it."""
        found: dict[int, float] = {}
        for arm in self.arms:
            found = self.values(arm, row, metric) | found
        return estimate(list(found.values()))

    def difference(
        self, first: tuple[str, str], second: tuple[str, str], metric: str
    ) -> Estimate | None:
        """Paired over the seeds that both (arm, row) have: first minus second, or None."""
        ours, theirs = self.values(*first, metric), self.values(*second, metric)
        return estimate([ours[seed] - theirs[seed] for seed in ours if seed in theirs])

    def to_control(self, arm: str, metric: str) -> Estimate | None:
        """Difference to the control in the last iteration."""
        return self.difference((arm, self.last), (CONTROL, self.last), metric)

    def missing(self) -> list[tuple[str, int]]:
        return [
            (arm, seed)
            for arm in self.arms
            for seed in self.seeds
            if seed not in self.runs.get(arm, {})
        ]

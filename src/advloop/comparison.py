"""Objectives compared over training seeds: which runs, their statistics, and the page about them.

Results are what docs/results.json holds: ``arms`` (name to objective, epochs, steps,
evaluations), ``cells`` (arm to seed to experiment, seconds, rows), ``seeds``, and how they were
made. A row is a model (reals, autoencoder, base, iter_0, …), a run its rows of one arm and seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advloop.intervals import mean_and_interval
from advloop.report import NAMES
from advloop.selection import Rows

CONTROL = "none"
EQUAL_COMPUTE = "none_equal_compute"


@dataclass(frozen=True)
class Metric:
    """A column: every metric of this name, or with ``prefix`` of a name that begins so."""

    name: str
    title: str
    better: str = ""  # "lower", "higher", or "" where neither is
    prefix: bool = False

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
        if name in NAMES or name.startswith("iter_")
    }
    names = metric_names(rows)
    return {row: {k: v for k, v in values.items() if k in names} for row, values in rows.items()}


def metric_names(rows: Rows) -> dict[str, Metric]:
    """The metrics that any row has, in the order of METRICS."""
    present = sorted({name for row in rows.values() for name in row})
    return {
        name: metric
        for metric in METRICS
        for name in present
        if (
            name.startswith(metric.name) and not name.endswith("_ci95")
            if metric.prefix
            else name == metric.name
        )
    }


class Comparison:
    """The finished runs of some results, by arm and seed."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.seeds: list[int] = list(results["seeds"])
        self.arms = arms_in_order(list(results["arms"]))
        self.runs: dict[str, dict[int, Rows]] = {
            arm: {int(seed): cell["rows"] for seed, cell in cells.items()}
            for arm, cells in results["cells"].items()
        }
        rows = {
            (arm, seed, name): row
            for arm, runs in self.runs.items()
            for seed, run in runs.items()
            for name, row in run.items()
        }
        self.metrics = metric_names({str(key): row for key, row in rows.items()})
        self.iterations = sorted({int(name[5:]) for _, _, name in rows if name.startswith("iter_")})

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

    def missing(self) -> list[tuple[str, int]]:
        return [
            (arm, seed)
            for arm in self.arms
            for seed in self.seeds
            if seed not in self.runs.get(arm, {})
        ]


# --- The page ---

PAGE = """# Objectives compared

Written by `make compare` from [`results.json`](results.json); do not edit.

Made with `{command}` at commit `{commit}`: scale `{scale}`, {seeds} a
row, {iterations} iterations each, all from the same data, autoencoder and base model. Every
objective takes {steps} optimiser steps an iteration{control}.

± is half the 95 % interval (Student's t) over training seeds, of one value a seed. {missing}

## The last iteration

{table}

Measured against images that nothing trained on; the first three rows do not depend on the
objective. ↓ lower is better, ↑ higher is better.

## Difference to `none`

{paired}

Of the last iteration, paired: the same training seed, so the same fakes in iteration 0.
**Bold**: the interval excludes zero. {tests} intervals are drawn in this table; of so many,
about one in twenty excludes zero by chance alone.

## Iteration by iteration

{iterations_table}

Change: to the iteration before (iteration 0: to the base model), paired over training seeds.

## Cost

{cost}

A network evaluation is one forward pass of the U-Net over one batch; a backward pass counts as
two. Wall time is that of a cell as it ran, one at a time, from the end of the one before to its
experiment's commit, median over seeds (lowest to highest): it holds DVC's own work and
the evaluation, and not the stages that DVC took from its run-cache because another cell (or an
earlier run) had made them. So the first cell of a seed carries what the seed shares; each seed
begins with another row. Cells that were interrupted are left out.

## Samples

{pictures}

## What was tried and failed

{tried}
"""


def page(results: Mapping[str, Any], tried: str, pictures: Mapping[str, str]) -> str:
    """Markdown of some results.

    tried: what is included verbatim (its title goes, the page has its own); pictures: by arm,
    paths as the page links them. Results without any finished cell have no page.
    """
    found = Comparison(results)
    arms: Mapping[str, Any] = results["arms"]
    control = ""
    if EQUAL_COMPUTE in arms:
        steps = arms[EQUAL_COMPUTE]["steps"]
        control = (
            f"; `{EQUAL_COMPUTE}` is `none` with as many\nnetwork evaluations as the costliest "
            f"objective has: {steps or 'more'} steps"
        )
    return PAGE.format(
        command=results["command"],
        commit=results["commit"],
        scale=results["scale"],
        seeds=f"{len(found.seeds)} training seeds ({', '.join(map(str, found.seeds))})",
        iterations=len(found.iterations),
        steps=arms[CONTROL]["steps"] or "as many",
        control=control,
        missing=_missing(found),
        table=last_table(found),
        paired=paired_table(found),
        tests=(len(found.arms) - 1) * len(found.metrics),
        iterations_table=iterations_table(found),
        cost=cost_table(results, found),
        pictures=_pictures(found, pictures),
        tried="\n".join(tried.strip().splitlines()[1:]).strip(),
    )


def _missing(found: Comparison) -> str:
    missing = found.missing()
    if not missing:
        return "No cell is missing."
    names = ", ".join(f"`{arm}` of seed {seed}" for arm, seed in missing)
    return f"**Not finished, and left out: {names}.**"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "---|" * (len(heads) - 1)
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(c)} |" for c in lines)])


def number(value: Estimate | None, sign: str = "") -> str:
    """``mean ± half``; empty of None."""
    if value is None:
        return ""
    half = "" if value.half is None else f" ± {value.half:.4f}"
    return f"{value.mean:{sign}.4f}{half}"


def change(value: Estimate | None) -> str:
    """A difference with its sign, bold where its interval excludes zero."""
    text = number(value, "+")
    return f"**{text}**" if value is not None and value.differs else text


def _headings(found: Comparison) -> list[str]:
    return [metric.heading(name) for name, metric in found.metrics.items()]


def _arm(found: Comparison, arm: str) -> str:
    count = len(found.runs.get(arm, {}))
    partial = "" if count == len(found.seeds) else f" ({count} of {len(found.seeds)} seeds)"
    return f"`{arm}`{partial}"


def last_table(found: Comparison) -> str:
    lines = [
        [title, *(number(found.shared(row, name)) for name in found.metrics)]
        for row, title in NAMES.items()
    ]
    lines += [
        [_arm(found, arm), *(number(found.mean(arm, found.last, name)) for name in found.metrics)]
        for arm in found.arms
    ]
    return table(["model", *_headings(found)], lines)


def paired_table(found: Comparison) -> str:
    control = (CONTROL, found.last)
    lines = [
        [
            _arm(found, arm),
            *(change(found.difference((arm, found.last), control, name)) for name in found.metrics),
        ]
        for arm in found.arms
        if arm != CONTROL
    ]
    return table(["minus `none`", *_headings(found)], lines)


def verdict(value: Estimate | None, better: str) -> str:
    """What a change says of a metric whose ``lower`` or ``higher`` values are better."""
    if value is None or value.half is None:
        return ""
    if not value.differs:
        return "no change shown"
    return "better" if (value.mean < 0) == (better == "lower") else "**worse**"


def iterations_table(found: Comparison) -> str:
    """Per arm and iteration: every KID and the critic's gap, and how each changed."""
    shown = {
        name: metric
        for name, metric in found.metrics.items()
        if metric.name in ("kid_", "critic_gap")
    }
    heads = ["objective", "iteration"]
    for name, metric in shown.items():
        heads += [metric.heading(name), "change", ""]
    lines = []
    for arm in found.arms:
        for i in found.iterations:
            cells = [f"`{arm}`", str(i)]
            before = f"iter_{i - 1}" if i else "base"
            for name, metric in shown.items():
                moved = found.difference((arm, f"iter_{i}"), (arm, before), name)
                value = found.mean(arm, f"iter_{i}", name)
                cells += [number(value), number(moved, "+"), verdict(moved, metric.better)]
            lines.append(cells)
    return table(heads, lines)


def cost_table(results: Mapping[str, Any], found: Comparison) -> str:
    lines = []
    for arm in found.arms:
        setting = results["arms"][arm]
        cells = results["cells"].get(arm, {}).values()
        seconds = [cell["seconds"] for cell in cells if cell["seconds"] is not None]
        total = ""
        if setting["steps"]:
            total = f"{setting['steps'] * setting['evaluations'] * len(found.iterations):,.0f}"
        lines.append(
            [
                f"`{arm}`",
                str(setting["epochs"]),
                str(setting["steps"] or ""),
                f"{setting['evaluations']:g}",
                total,
                _wall(seconds),
            ]
        )
    heads = ["objective", "epochs an iteration", "steps an iteration"]
    heads += ["network evaluations a step", "of a run's fine-tuning", "wall time, s"]
    return table(heads, lines)


def _wall(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    return f"{statistics.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"


def _pictures(found: Comparison, pictures: Mapping[str, str]) -> str:
    rows = ", ".join(["base model", *(f"iteration {i}" for i in found.iterations)])
    parts = [
        f"Seed {found.seeds[0]}. From the top: real evaluation images, then samples of the same "
        f"noise: {rows}. In few colours, to keep the files small."
    ]
    for arm in found.arms:
        if arm in pictures:
            parts.append(f"### `{arm}`\n\n![Samples of {arm}]({pictures[arm]})")
    return "\n\n".join(parts)

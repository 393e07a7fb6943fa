"""The coordinates of a chart's marks. The template turns them into markup.

They are SVG user units in a box of WIDTH × HEIGHT; on a phone, a unit is a CSS pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from advloop.reporting.curves import Curve

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 30, 36  # margins
TICKS = 5  # wanted on the vertical axis
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Series:
    """One line of a chart, with one piece for each round."""

    label: str
    pieces: list[list[Point]]


@dataclass(frozen=True)
class Whisker:
    """A row of a forest plot: a mean at x, the x of its interval's ends, and the row's y."""

    label: str
    at: float
    low: float
    high: float
    y: float
    faint: bool


@dataclass(frozen=True)
class Chart:
    """text: the chart in words. edges: x of the lines between rounds. zero: x of no change."""

    title: str
    text: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series] = field(default_factory=list)
    whiskers: list[Whisker] = field(default_factory=list)
    edges: list[float] = field(default_factory=list)
    zero: float | None = None


def nice_ticks(low: float, high: float) -> list[float]:
    """At most TICKS + 3 round numbers that span [low, high]."""
    if not high > low:  # a flat line
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(f for f in (1, 2, 2.5, 5, 10) if f * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def short(value: float) -> str:
    """At most four significant digits."""
    return f"{value:.4g}" if value else "0"


class _Axis:
    """Maps values to places between two ends: of the vertical axis, unless others are given."""

    def __init__(
        self, values: Sequence[float], first: float = HEIGHT - BOTTOM, last: float = TOP
    ) -> None:
        self.values = nice_ticks(min(values), max(values))
        self.first, self.last = first, last

    def __call__(self, value: float) -> float:
        low, high = self.values[0], self.values[-1]
        return round(self.first + (value - low) / (high - low) * (self.last - self.first), 2)

    def ticks(self) -> list[Tick]:
        return [Tick(self(value), short(round(value, 10))) for value in self.values]


def line_chart(title: str, rounds: Mapping[str, Mapping[str, Curve]]) -> Chart:
    """The curves of one round after another, from left to right, with the same lines in each.

    rounds: for each round, curves by label. Curves without a value are left out.
    """
    spans = {
        name: max((x for curve in curves.values() for x, _ in curve), default=0.0)
        for name, curves in rounds.items()
    }
    width = (WIDTH - LEFT - RIGHT) / max(1.0, sum(spans.values()))
    labels = dict.fromkeys(label for curves in rounds.values() for label in curves)
    axis = _Axis([y for curves in rounds.values() for c in curves.values() for _, y in c] or [0])
    pieces: dict[str, list[list[Point]]] = {label: [] for label in labels}
    ticks, edges, start = [], [], float(LEFT)
    for name, curves in rounds.items():
        ticks.append(Tick(round(start + spans[name] * width / 2, 2), name))
        for label, curve in curves.items():
            if curve:
                pieces[label].append(
                    [(round(start + (x - 0.5) * width, 2), axis(y)) for x, y in curve]
                )
        start += spans[name] * width
        edges.append(round(start, 2))
    return Chart(
        title,
        f"{title}. " + " ".join(_in_words(name, curves) for name, curves in rounds.items()),
        ticks,
        axis.ticks(),
        series=[Series(label, pieces[label]) for label in labels],
        edges=edges[:-1],
    )


def _in_words(name: str, curves: Mapping[str, Curve]) -> str:
    moves = [
        f"{label} from {short(curve[0][1])} to {short(curve[-1][1])}"
        for label, curve in curves.items()
        if curve
    ]
    return f"{name}: {', '.join(moves) or 'no values'}."


def forest_chart(title: str, values: Mapping[str, tuple[float, float, bool]]) -> Chart:
    """A forest plot: for each label, a mean and half its 95 % interval, around a line at zero.

    The third value says whether the row counts; the others are drawn faint.
    """
    ends = [mean + side * half for mean, half, _ in values.values() for side in (-1, 1)]
    axis = _Axis([0.0, *ends], LEFT / 2, WIDTH - LEFT / 2)
    step = (HEIGHT - TOP - BOTTOM) / len(values)
    words = ", ".join(
        f"{label} {short(mean)} ± {short(half)}{'' if counts else ' (does not count)'}"
        for label, (mean, half, counts) in values.items()
    )
    return Chart(
        title,
        f"{title}, with 95 % intervals: {words}.",
        axis.ticks(),
        [],
        whiskers=[
            Whisker(
                label,
                axis(mean),
                axis(mean - half),
                axis(mean + half),
                round(TOP + (k + 0.7) * step, 2),
                not counts,
            )
            for k, (label, (mean, half, counts)) in enumerate(values.items())
        ],
        zero=axis(0.0),
    )

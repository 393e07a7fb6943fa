"""A metric, the scores of a model, and the file that holds them.

Without torch, because the light stages read scores. Each score carries its metric's title and
direction, so that a new metric appears in every table without further code.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.core.files import read_json, write_json

FILE = "scores.json"
LISTED = ("table", "page", "file")
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
LARGEST = 1e300  # JSON's whole numbers may exceed any float
DECIMALS = 6  # of every mean and interval in files: finer than any interval here
SHOWN = 2  # the most decimals in tables

# two-sided 95 % quantiles of Student's t by degrees of freedom
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def student_t(freedom: int) -> float:
    """Two-sided 95 % quantile; beyond the table by Abramowitz & Stegun 1964, Eq. 26.7.5."""
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return STUDENT_T.get(freedom, z + first + second + third)


def mean_and_interval(
    values: Sequence[float], without: Sequence[float] = ()
) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t).

    values: independent ones, by sampling or training seed. without: the same mean without each
    group of the reals in turn; its jackknife variance (Efron & Stein 1981) adds what depends on
    the choice of these groups. The degrees of freedom are Welch & Satterthwaite's.
    """
    parts = [(statistics.variance(values) / len(values), len(values) - 1)]
    if len(without) > 1:
        others = len(without) - 1
        parts.append((others * statistics.pvariance(without), others))
    total = sum(variance for variance, _ in parts)
    if not total:
        return statistics.fmean(values), 0.0
    freedom = total**2 / sum(variance**2 / count for variance, count in parts)
    return statistics.fmean(values), student_t(math.floor(freedom + 1e-9)) * total**0.5


def with_interval(mean: float, half: float | None) -> str:
    """``mean ± half`` with two digits of half, in at most SHOWN decimals; half is rounded up."""
    if half is None:
        return f"{mean:.{SHOWN}f}"
    places = min(SHOWN, max(0, 1 - math.floor(math.log10(half)))) if half else SHOWN
    return f"{mean:.{places}f} ± {math.ceil(half * 10**places - 1e-9) / 10**places:.{places}f}"


@dataclass(frozen=True)
class Metric:
    """name: in files; title: in tables. better: ``lower``, ``higher``, or "" if neither.

    listed: ``table`` (the short table, the page and metrics.json), ``page`` (the page and
    metrics.json), or ``file`` (metrics.json).
    """

    name: str
    title: str
    better: str = ""
    listed: str = "page"


@dataclass(frozen=True)
class Score:
    """One metric of one model. values: one for each sampling seed, or a single one.

    features: the network whose features were compared, or "". split: of the real images. without:
    the mean of the values without each group of the reals in turn, or ().
    """

    metric: Metric
    values: tuple[float, ...]
    features: str = ""
    split: str = "test"
    without: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """As in metrics.json: ``kid_lite0``, ``tune_kid_lite0``, ``critic_gap``."""
        split = "" if self.split == "test" else f"{self.split}_"
        return f"{split}{self.metric.name}" + (f"_{self.features}" if self.features else "")

    @property
    def title(self) -> str:
        """As in tables, with an arrow towards better values."""
        split = "" if self.split == "test" else f"{self.split} "
        return f"{split}{self.metric.title}{ARROWS[self.metric.better]}"

    @property
    def mean(self) -> float:
        return round(statistics.fmean(self.values), DECIMALS)

    @property
    def half(self) -> float | None:
        """Half the 95 % interval of the mean; None for a single value.

        Over sampling seeds and, if ``without`` is known, over the groups of the reals.
        """
        if len(self.values) < 2:
            return None
        return round(mean_and_interval(self.values, self.without)[1], DECIMALS)

    def text(self) -> str:
        """``mean ± half``."""
        return with_interval(self.mean, self.half)


@dataclass(frozen=True)
class Scores:
    """All scores of one model, or of a set of real images, in the order of the tables."""

    model: str
    scores: tuple[Score, ...]

    def find(self, metric: str, split: str = "test") -> Score | None:
        """The score of that metric, or None."""
        matching = (s for s in self.scores if s.metric.name == metric and s.split == split)
        return next(matching, None)

    def get(self, metric: str, split: str = "test") -> Score:
        """The score of that metric; UserError if it was not measured."""
        if (score := self.find(metric, split)) is None:
            raise UserError(f"scores: {self.model} has no {split} {metric}; run `dvc repro`")
        return score

    def flat(self) -> dict[str, float]:
        """Each score's mean by its name, and half its interval as ``{name}_ci95``."""
        found: dict[str, float] = {}
        for score in self.scores:
            found[score.name] = score.mean
            if score.half is not None:
                found[f"{score.name}_ci95"] = score.half
        return found

    def describe(self) -> str:
        """All scores in one line."""
        return ", ".join(f"{score.name}={score.text()}" for score in self.scores)


def score_all(
    values: Mapping[Metric, Sequence[float]], features: str = "", split: str = "test"
) -> list[Score]:
    """One score for each metric, in the same features and against the same split."""
    return [Score(metric, tuple(found), features, split) for metric, found in values.items()]


def write_scores(path: Path, scores: Scores) -> None:
    write_json(path, asdict(scores))


def read_scores(path: Path) -> Scores:
    """What ``write_scores`` wrote; UserError for any other content."""
    content = read_json(path)
    try:
        scores = tuple(_read_score(row) for row in content["scores"])
        if not isinstance(content["model"], str):
            raise TypeError("its model has no name")
        twice = {s.name for s in scores if [o.name for o in scores].count(s.name) > 1}
        if not scores or twice:
            raise ValueError(f"{min(twice)} appears twice" if twice else "it holds no score")
    except (KeyError, TypeError, ValueError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path}: not the scores of a model ({problem}); remake it with `dvc repro`"
        ) from None
    return Scores(content["model"], scores)


def _read_score(row: Mapping[str, Any]) -> Score:
    metric = Metric(**row["metric"])
    texts = (metric.name, metric.title, row["features"], row["split"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is not a text")
    if metric.better not in ARROWS or metric.listed not in LISTED:
        raise ValueError(f"{metric.name}: better={metric.better}, listed={metric.listed}")
    values, without = tuple(row["values"]), tuple(row["without"])
    if not values:
        raise ValueError(f"{metric.name} has no value")
    for value in (*values, *without):
        require_number(metric.name, value)
    return Score(metric, values, row["features"], row["split"], without)


def require_number(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -LARGEST < value < LARGEST:
        raise ValueError(f"{name}={value} is not a finite number")


def read_numbers(path: Path) -> dict[str, float]:
    """Finite numbers by name, as training stages write; UserError for any other content."""
    content = read_json(path)
    try:
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}")
        for name, value in content.items():
            require_number(name, value)
    except ValueError as error:
        raise UserError(
            f"{path}: not numbers by name ({error}); remake it with `dvc repro`"
        ) from None
    return content


def names(scores: Iterable[Scores]) -> list[Score]:
    """One score for each name that any of the models has, in the order of the tables."""
    return list({score.name: score for one in scores for score in one.scores}.values())

"""What the exam of a run found: the file, and which views passed. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.core.files import read_json, write_json
from advloop.evaluation.scores import require_number

EXAM = "exam.json"
GARBAGE, REAL, SAMPLES = "garbage", "real", "samples"
SEES, BLIND, FOOLED = "sees", "blind", "fooled"
Values = Mapping[str, float]  # by figure; lower is better


@dataclass(frozen=True)
class Row:
    """One case. kind: GARBAGE, or damage laid on REAL images or on SAMPLES of the model.

    values: for each strength, the figures. found: by figure, SEES, BLIND or FOOLED.
    """

    kind: str
    case: str
    values: Sequence[Values]
    found: Mapping[str, str]

    def __str__(self) -> str:
        return self.case if self.kind == GARBAGE else f"{self.case} on {self.kind}"


@dataclass(frozen=True)
class Report:
    """clean, bound, samples: the figures of those sets. spread: the deviation over clean draws.

    images: how many each set has.
    """

    images: int
    clean: Values
    spread: Values
    bound: Values
    samples: Values
    rows: Sequence[Row]

    @property
    def figures(self) -> list[str]:
        return list(self.clean)

    def failures(self, figure: str) -> list[Row]:
        """The cases that fool a figure."""
        return [row for row in self.rows if row.found[figure] == FOOLED]

    @property
    def valid(self) -> list[str]:
        """The figures that nothing fools."""
        return [figure for figure in self.figures if not self.failures(figure)]

    def agreeing(self, figures: Sequence[str]) -> list[str]:
        """The garbage and the damaged samples that all ``figures`` prefer to the model's samples.

        By more than two deviations of the clean draws. They would fool a claim that needs the
        figures to agree.
        """
        return [
            f"{row}, strength {strength}"
            for row in self.rows
            if row.kind != REAL
            for strength, values in enumerate(row.values, 1)
            if all(values[f] < self.samples[f] - 2 * self.spread[f] for f in figures)
        ]


def write_report(path: Path, report: Report) -> None:
    write_json(path, asdict(report))


def read_report(path: Path) -> Report:
    """What ``write_report`` wrote; UserError for any other content."""
    content = read_json(path)
    try:
        sets = ("clean", "spread", "bound", "samples")
        clean, spread, bound, samples = (_values(content[name]) for name in sets)
        rows = [_row(row, clean) for row in content["rows"]]
        same = all(set(values) == set(clean) for values in (spread, bound, samples))
        if not isinstance(content["images"], int) or not same:
            raise ValueError("its sets do not have the same figures")
        return Report(content["images"], clean, spread, bound, samples, rows)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not an exam ({problem}); remake it with `dvc repro`") from None


def _values(content: Mapping[str, Any]) -> Values:
    for name, value in content.items():
        require_number(name, value)
    return dict(content)


def _row(content: Mapping[str, Any], figures: Values) -> Row:
    values, found = [_values(one) for one in content["values"]], dict(content["found"])
    if content["kind"] not in (GARBAGE, REAL, SAMPLES) or not isinstance(content["case"], str):
        raise ValueError(f"{content['case']} of {content['kind']} is no case")
    if not values or any(set(one) != set(figures) for one in (*values, found)):
        raise ValueError(f"{content['case']} has other figures")
    if not set(found.values()) <= {SEES, BLIND, FOOLED}:
        raise ValueError(f"{content['case']} is neither seen nor not")
    return Row(content["kind"], content["case"], values, found)

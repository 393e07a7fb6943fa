"""docs/exam.md says what the exam found."""

from __future__ import annotations

from advloop.evaluation.exam_report import BLIND, FOOLED, SEES, Report, Row
from advloop.evaluation.results import VIEWS
from exam import page

VALUES = dict.fromkeys(VIEWS, 0.317) | {"pixels": 177.04}


def found(pixels: str, others: str) -> dict[str, str]:
    return dict.fromkeys(VIEWS, others) | {"pixels": pixels}


LOW = dict.fromkeys(VIEWS, 0.1) | {"pixels": 90.0}
ROWS = [
    Row("garbage", "one image repeated", [VALUES | {"pixels": 175}], found(FOOLED, SEES)),
    Row("real", "noise", [VALUES] * 3, found(SEES, BLIND)),
    Row("samples", "blur", [LOW] * 3, found(FOOLED, FOOLED)),
]


def test_page_names_what_fools_each_figure_and_what_fools_all_views_together():
    small = dict.fromkeys(VIEWS, 0.006) | {"pixels": 50.0}
    spread = dict.fromkeys(VIEWS, 0.002) | {"pixels": 1.25}
    text = page(Report(100, small, spread, small, VALUES, ROWS), "plans.zip", 0.1)
    lines = text.splitlines()
    assert "| pixels | 50 ± 1.25 | 50 | 177 | one image repeated, blur on samples |" in lines
    assert "| garbage | one image repeated | **fooled**: 175 | 0.317 |" in text
    assert "| real | noise | 177, 177, 177 | blind: 0.317, 0.317, 0.317 |" in text
    agreed = ", ".join(f"blur on samples, strength {k}" for k in (1, 2, 3))
    assert f"All of {', '.join(VIEWS)} prefer to the base model's samples: {agreed}." in lines

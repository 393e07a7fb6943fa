"""docs/exam.md says what the exam found."""

from __future__ import annotations

from advloop.evaluation.exam import BLIND, FOOLED, SEES, Report, Row
from exam import page

VALUES = {"pixels": 177.04, "KID": 0.317}
ROWS = [
    Row(
        "garbage",
        "one image repeated",
        [{"pixels": 175, "KID": 0.5}],
        {"pixels": FOOLED, "KID": SEES},
    ),
    Row("real", "noise", [VALUES] * 3, {"pixels": SEES, "KID": BLIND}),
    Row("samples", "blur", [{"pixels": 90.0, "KID": 0.1}] * 3, {"pixels": FOOLED, "KID": FOOLED}),
]


def test_page_names_what_fools_each_figure_and_what_fools_all_views_together():
    small = {"pixels": 50.0, "KID": 0.006}
    spread = {"pixels": 1.25, "KID": 0.002}
    report = Report(small, spread, small, VALUES, ROWS)
    text = page(report, ["pixels", "KID"], 168, "plans.zip")
    lines = text.splitlines()
    row = "| pixels | 50 ± 1.25 | 50 | 177 | one image repeated (garbage), blur (samples) |"
    assert row in lines
    assert "| garbage | one image repeated | **fooled**: 175 | 0.5 |" in lines
    assert "| real | noise | 177, 177, 177 | blind: 0.317, 0.317, 0.317 |" in lines
    agreed = "blur (samples, strength 1), blur (samples, strength 2), blur (samples, strength 3)."
    assert f"All of pixels, KID prefer to the base model's samples: {agreed}" in lines

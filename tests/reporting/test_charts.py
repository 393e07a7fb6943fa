"""The coordinates of a chart's marks, its text, and the curves that it is made from."""

from __future__ import annotations

import pytest

from advloop.core.errors import UserError
from advloop.reporting.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TICKS,
    TOP,
    WIDTH,
    forest_chart,
    line_chart,
    nice_ticks,
)
from advloop.reporting.curves import read_curves

ROUNDS = {
    "iter_0": {"training": [(1.0, 0.8), (2.0, 0.4)], "validation": [(2.0, 0.6)]},
    "iter_1": {"training": [(1.0, 0.2), (2.0, 0.3)], "validation": []},
}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (-0.15, 0.64, [-0.2, 0, 0.2, 0.4, 0.6, 0.8]),
        (0.513, 0.552, [0.51, 0.52, 0.53, 0.54, 0.55, 0.56]),
        (1e5, 1e5, [99999.4, 99999.6, 99999.8, 100000, 100000.2, 100000.4, 100000.6]),
    ],
)
def test_ticks_are_round_numbers_that_span_the_values(low, high, expected):
    found = nice_ticks(low, high)
    assert found == pytest.approx(expected)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= TICKS + 3


def test_rounds_stand_beside_one_another_and_higher_values_higher():
    chart = line_chart("Loss", ROUNDS)
    (first, second), (third, fourth) = chart.series[0].pieces
    assert first[0] < second[0] < chart.edges[0] < third[0] < fourth[0]
    assert third[1] > fourth[1] > second[1] > first[1]  # y grows downwards
    assert [tick.label for tick in chart.x_ticks] == ["iter_0", "iter_1"]
    points = [point for line in chart.series for piece in line.pieces for point in piece]
    assert all(LEFT < x < WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in points)


def test_a_curve_without_values_has_no_piece_and_its_words_say_first_and_last():
    chart = line_chart("Loss", ROUNDS)
    assert [len(line.pieces) for line in chart.series] == [2, 1]
    assert chart.text == (
        "Loss. iter_0: training from 0.8 to 0.4, validation from 0.6 to 0.6. "
        "iter_1: training from 0.2 to 0.3."
    )


def test_a_forest_plot_has_a_row_a_view_around_a_line_at_no_change():
    chart = forest_chart("Changes", {"pixels": (-0.5, 0.2, True), "layout": (0.25, 0.5, False)})
    at = {tick.label: tick.at for tick in chart.x_ticks}
    assert at["0"] == chart.zero
    pixels, layout = chart.whiskers
    assert (pixels.label, layout.label) == ("pixels", "layout")
    assert pixels.y < layout.y
    assert (pixels.faint, layout.faint) == (False, True)
    assert pixels.low < pixels.at < pixels.high < chart.zero < layout.at  # better is on the left
    per_unit = (at["0"] - at["-0.5"]) / 0.5
    assert pixels.high - pixels.low == pytest.approx(0.4 * per_unit, abs=0.1)
    assert chart.text == (
        "Changes, with 95 % intervals: pixels -0.5 ± 0.2, layout 0.25 ± 0.5 (does not count)."
    )


def test_an_epoch_without_a_value_is_no_point_of_its_curve(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss,val_loss\n1,0.5,\n2,0.25,0.3\n")
    assert read_curves(path, "loss") == {"loss": [(1, 0.5), (2, 0.25)], "val_loss": [(2, 0.3)]}


@pytest.mark.parametrize("content", ["epoch,loss\n1,nan\n", "epoch,loss\n1,2,3\n", "loss\n1\n", ""])
def test_a_history_that_is_none_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(UserError, match="not a history of epochs") as caught:
        read_curves(path, "loss")
    assert "\n" not in str(caught.value)

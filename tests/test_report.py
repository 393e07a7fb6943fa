"""The summary of a run: its order, its final row, its table."""

from __future__ import annotations

from advloop.report import in_order, markdown_table

ROWS = {
    "base": {"kid_lite0": 1.0, "kid_lite0_ci95": 0.1, "test_noise_loss": 0.5},
    "iter_0": {"kid_lite0": 0.9, "kid_lite0_ci95": 0.1, "disc_val_accuracy": 0.6},
    "iter_10": {"kid_lite0": 0.7},
    "iter_2": {"kid_lite0": 0.8},
    "reals": {"kid_lite0": 0.01},
    "autoencoder": {"kid_lite0": 0.4},
}


def test_rows_read_from_sorted_json_stand_in_the_order_of_the_run():
    assert list(in_order(ROWS)) == [
        "reals",
        "autoencoder",
        "base",
        "iter_0",
        "iter_2",
        "iter_10",
    ]


def test_table_has_a_line_a_model_with_the_interval_where_there_is_one():
    lines = markdown_table(in_order(ROWS)).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert lines[2] == "| real against real (floor) | 0.0100 |  |  |  |"
    assert lines[3] == "| real through the autoencoder (bound) | 0.4000 |  |  |  |"
    assert lines[4] == "| base model | 1.0000 ± 0.1000 | 0.5000 |  |  |"
    assert lines[7] == "| iter_10 | 0.7000 |  |  |  |"

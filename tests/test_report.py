"""The summary of a run: its order, its final row, its table, its warnings."""

from __future__ import annotations

import pytest

from advloop.reporting.report import in_order, markdown_table, rounds_csv, summary, worse_rounds


def row(tune: float, kid: tuple[float, float], **more: float) -> dict:
    mean = sum(kid) / 2
    seeds = {"kid_lite0": list(kid), "critic_gap": [0.1, 0.3]}
    return {"kid_lite0": mean, "kid_lite0_ci95": 0.1, "tune_kid_lite0": tune, **more} | {
        "seeds": seeds
    }


ROWS = {
    "base": row(1.0, (0.9, 1.1), critic_gap=0.2, critic_gap_ci95=0.01),
    "iter_0": row(0.5, (0.8, 1.0), disc_val_accuracy=0.6, diffusion_val_viability_score=0.4),
    "iter_10": row(0.7, (0.9, 1.1), disc_val_accuracy=0.95),
    "iter_2": row(0.8, (0.7, 0.9), disc_val_accuracy=0.7),
    "reals": row(0.0, (0.01, 0.01)),
    "autoencoder": row(0.4, (0.4, 0.4)),
}


def test_rows_read_from_sorted_json_stand_in_the_order_of_the_run():
    assert list(in_order(ROWS)) == ["reals", "autoencoder", "base", "iter_0", "iter_2", "iter_10"]


def test_held_out_figures_come_before_those_of_the_training_in_sorted_order():
    content = summary(ROWS)
    assert list(content) == sorted(content) == ["held_out", "training"]
    assert content["training"]["iter_0"] == {
        "disc_val_accuracy": 0.6,
        "diffusion_val_viability_score": 0.4,
    }
    assert set(content["training"]) == {"iter_0", "iter_2", "iter_10"}
    held_out = content["held_out"]["iter_0"]
    assert not [name for name in held_out if name.startswith(("disc_", "diffusion_"))]


def test_final_is_the_selected_model_and_not_the_last():
    final = summary(ROWS)["held_out"]["final"]
    assert final["iteration"] == 0
    assert final["kid_lite0"] == pytest.approx(0.9)
    assert "change_kid_lite0" not in final  # to the round before, which a reader of final misses
    worse = {name: row(2.0, (2.0, 2.0)) for name in ("iter_0", "iter_2", "iter_10")}
    assert summary(ROWS | worse)["held_out"]["final"]["iteration"] == -1


def test_summary_holds_numbers_alone_and_the_paired_change_of_each_round():
    content = summary(ROWS)
    values = [v for part in content.values() for row in part.values() for v in row.values()]
    assert all(isinstance(value, int | float) for value in values)
    assert content["held_out"]["iter_0"]["change_kid_lite0"] == pytest.approx(-0.1)
    assert content["held_out"]["iter_0"]["change_kid_lite0_ci95"] == pytest.approx(0.0)
    assert content["held_out"]["iter_10"]["change_kid_lite0"] == pytest.approx(0.2)
    assert content["held_out"]["iter_10"]["change_critic_gap"] == pytest.approx(0.0)
    assert "change_kid_lite0" not in content["held_out"]["base"]


def test_a_round_that_made_kid_worse_beyond_its_interval_is_named():
    lines = worse_rounds(ROWS)
    assert len(lines) == 1
    assert lines[0].startswith("iter_10 made kid_lite0 of the test images worse by 0.2000 ± 0.0000")
    noisy = {"base": row(1.0, (0.9, 1.1)), "iter_0": row(1.0, (1.3, 0.9))}
    assert worse_rounds(noisy) == []  # +0.1 on average, with an interval far wider


def test_table_has_a_line_a_model_with_the_interval_where_there_is_one():
    lines = markdown_table(summary(ROWS)).splitlines()
    assert lines[0] == (
        "| model | KID | critic gap | critic AUC | coverage | precision | D accuracy | viability |"
    )
    assert len(lines) == 2 + len(ROWS)
    assert lines[2].startswith("| real against real (floor) | 0.0100 ± 0.1000 |  |")
    assert lines[4].startswith("| base model | 1.0000 ± 0.1000 | 0.2000 ± 0.0100 |  |")
    assert lines[5].endswith("| 0.6000 | 0.4000 |")


def test_table_of_rounds_has_a_line_a_model_with_the_floor_beside_it():
    gap = {"critic_gap": 0.2, "critic_gap_ci95": 0.01}
    rows = {name: ROWS[name] | gap for name in ("base", "iter_10", "iter_2")}
    assert rounds_csv(rows | {"reals": ROWS["reals"]}) == (
        "iteration,kid,kid_ci95,kid_floor,critic_gap,critic_gap_ci95,critic_gap_floor\n"
        "-1,1.0,0.1,0.01,0.2,0.01,\n"
        "2,0.8,0.1,0.01,0.2,0.01,\n"
        "10,1.0,0.1,0.01,0.2,0.01,\n"
    )

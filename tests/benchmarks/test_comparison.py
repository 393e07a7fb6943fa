"""The comparison of objectives: its arithmetic by hand, its tables, and the committed page."""

from __future__ import annotations

from pathlib import Path

import pytest

from advloop.core.errors import UserError
from advloop.core.files import read_json
from advloop.evaluation.results import VIEWS
from cells import equal_compute_epochs, order_of_cells
from comparison import Comparison, Estimate, arms_in_order, estimate
from result_tables import (
    change,
    claims_table,
    cost_table,
    iterations_table,
    last_table,
    number,
    paired_table,
    verdict,
)
from results import PAGE, PICTURES, RESULTS, rendered
from results_page import page
from scores import compared_scores

REPO = Path(__file__).resolve().parents[2]
T2 = 4.303  # Student's t of two degrees of freedom
SQRT3 = 3**0.5


def arm(
    objective: str, *settings: str, epochs: int = 10, evaluations: float = 3
) -> dict[str, object]:
    return {
        "objective": objective,
        "epochs": epochs,
        "steps": 16 * epochs,
        "evaluations": evaluations,
        "settings": ["seed=1", *settings],
    }


def cell(seconds: float | None, *kids: float, gap: float = 0.2, **exam: int) -> dict[str, object]:
    """A run whose base model and iterations have these KIDs, and 0 in the other views."""
    names = ["base", *(f"iter_{i}" for i in range(len(kids) - 1))]
    rows = {name: {"kid_lite0": kid} for name, kid in zip(names, kids, strict=True)}
    rows[names[-1]]["critic_gap"] = gap
    rows["base"]["critic_gap"] = 0.5
    rows["reals"] = {"kid_lite0": 0.01}
    rows["autoencoder"] = {"kid_lite0": 0.1, "critic_gap": 0.0}
    passed = dict.fromkeys(VIEWS, 1) | exam
    return {"experiment": "compare-x", "seconds": seconds, "exam": passed, "rows": rows}


RESULT = {
    "command": "make compare",
    "commit": "0123456789",
    "scale": "demo",
    "seeds": [0, 1, 2],
    "smallest_change": 0.1,
    "arms": {
        "ddo": arm("ddo", "weight=2", evaluations=8),
        "none": arm("none"),
        "none_equal_compute": arm("none", epochs=27),
    },
    "cells": {  # at iteration 1 ddo is below none by 0.3, 0.4 and 0.5
        "none": {
            str(seed): cell(seconds, 1.0, 0.9, kid)
            for seed, seconds, kid in ((0, 10, 0.8), (1, 30, 0.9), (2, None, 1.0))
        },
        "ddo": {
            str(seed): cell(seconds, 1.0, 0.7, 0.5, gap=gap)
            for seed, seconds, gap in ((0, 20, 0.1), (1, 21, 0.3), (2, 90, 0.2))
        },
        "none_equal_compute": {"1": cell(50, 1.0, 0.8, 0.7)},
    },
}
FOUND = Comparison(RESULT)


def columns(text: str, start: str) -> list[str]:
    """Cells of the one line of a table that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [part.strip() for part in line.strip("|").split("|")]


# --- Which runs ---


def test_control_of_equal_compute_takes_at_least_as_many_evaluations():
    assert equal_compute_epochs(10, {"none": 3, "seed": 3}) == 10
    assert equal_compute_epochs(10, {"none": 3, "ddo": 8}) == 27  # 26.67
    assert equal_compute_epochs(10, {"none": 3, "ddo": 4.2}) == 14  # not 15 by rounding error


def test_controls_come_first_but_each_seed_begins_with_another_arm():
    names = ["none", "none_equal_compute", "ddo", "x0"]
    assert arms_in_order(["x0", "none_equal_compute", "ddo", "none"]) == names
    cells = order_of_cells(["a", "b", "c"], [5, 7])
    assert cells == [("a", 5), ("b", 5), ("c", 5), ("b", 7), ("c", 7), ("a", 7)]
    assert len(set(order_of_cells(["a", "b"], [0, 1, 2]))) == 6


# --- Statistics ---


def test_estimate_of_no_one_and_three_values():
    assert estimate([]) is None
    assert estimate([2.0]) == Estimate(2.0, None, 1)
    found = estimate([1.0, 2.0, 3.0])
    assert found == Estimate(2.0, pytest.approx(T2 / SQRT3), 3)
    assert not found.differs


def test_difference_is_paired_by_seed_and_takes_only_the_seeds_that_both_arms_finished():
    found = FOUND.difference(("ddo", "iter_1"), ("none", "iter_1"), "kid_lite0")
    # -0.3, -0.4, -0.5: standard deviation 0.1; the unpaired one would be wider
    assert found == Estimate(pytest.approx(-0.4), pytest.approx(T2 * 0.1 / SQRT3), 3)
    assert found.differs
    assert FOUND.to_control("ddo", "kid_lite0") == found
    alone = FOUND.to_control("none_equal_compute", "kid_lite0")
    assert alone == Estimate(pytest.approx(-0.2), None, 1)
    assert not alone.differs
    assert FOUND.missing() == [("none_equal_compute", 0), ("none_equal_compute", 2)]


def test_models_that_do_not_depend_on_the_arm_are_counted_once_a_seed():
    found = FOUND.shared("reals", "kid_lite0")
    assert found == Estimate(pytest.approx(0.01), pytest.approx(0), 3)


def test_scores_of_single_models_are_kept_whatever_the_feature_network():
    metrics = {
        "figure": 1.0,
        "held_out": {
            "final": {"kid_lite0": 1.0},
            "base": {"kid_inception": 2.0, "kid_inception_ci95": 0.1, "tune_kid_inception": 3},
            "iter_0": {"kid_inception": 1.5, "critic_gap": 0.1, "critic_gap_ci95": 0.2},
        },
        "training": {"iter_0": {"disc_val_accuracy": 0.6, "disc_best_epoch": 3}},
    }
    assert compared_scores(metrics) == {
        "base": {"kid_inception": 2.0},
        "iter_0": {"kid_inception": 1.5, "critic_gap": 0.1, "disc_val_accuracy": 0.6},
    }


# --- Tables ---


def test_numbers_and_changes_as_they_are_written():
    assert number(None) == ""
    assert number(Estimate(1.0, None, 1)) == "1.00"
    assert number(Estimate(1.0, 0.5, 3)) == "1.00 ± 0.50"
    assert change(Estimate(0.1, 0.2, 3)) == "+0.10 ± 0.20"
    assert change(Estimate(-0.3, 0.2, 3)) == "**-0.30 ± 0.20**"


def test_verdict_needs_an_interval_that_excludes_zero():
    assert verdict(None, "lower") == verdict(Estimate(-1.0, None, 1), "lower") == ""
    assert verdict(Estimate(-0.1, 0.2, 3), "lower") == "no change shown"
    assert verdict(Estimate(-0.3, 0.2, 3), "lower") == "better"
    assert verdict(Estimate(0.3, 0.2, 3), "lower") == "**worse**"
    assert verdict(Estimate(0.3, 0.2, 3), "higher") == "better"


def test_table_of_the_last_iteration_leaves_out_metrics_that_no_run_has():
    text = last_table(FOUND)
    assert columns(text, "model") == ["model", "KID (lite0) ↓", "latent critics ↓"]
    assert columns(text, "real against") == ["real against real (floor)", "0.01 ± 0.00", ""]
    assert columns(text, "base model")[1] == "1.00 ± 0.00"
    # half: T2 * 0.1 / SQRT3 is 0.2484
    assert columns(text, "`none`") == ["`none`", "0.90 ± 0.25", "0.20 ± 0.00"]
    assert columns(text, "`ddo`")[2] == "0.20 ± 0.25"
    partial = ["`none_equal_compute` (1 of 3 seeds)", "0.70", "0.20"]
    assert columns(text, "`none_equal") == partial


def test_a_view_that_failed_an_exam_is_marked_and_claims_nothing():
    failed = {"0": cell(5, 1.0, 0.9, 0.8, kid=0)}
    found = Comparison(RESULT | {"cells": RESULT["cells"] | {"none": failed}})
    assert found.valid == [view for view in VIEWS if view != "kid"]
    heads = ["model", "KID (lite0) ↓ †", "latent critics ↓"]
    assert columns(last_table(found), "model") == heads


def gaps(*pairs: tuple[float, float]) -> dict[str, object]:
    """Three seeds of an arm whose last iteration has this KID and this gap."""
    return {str(k): cell(5, 1.0, 1.0, kid, gap=gap) for k, (kid, gap) in enumerate(pairs)}


@pytest.mark.parametrize(
    ("arm", "kid", "gap", "claim"),
    [
        (gaps((0.5, 0.1), (0.51, 0.11), (0.49, 0.09)), "better", "better", "better"),
        (gaps((1.5, 0.3), (1.51, 0.31), (1.49, 0.29)), "worse", "worse", "worse"),
        (gaps((0.5, 0.2), (0.51, 0.1), (0.49, 0.3)), "better", "no change shown", None),
        (gaps((0.5, 0.3), (0.51, 0.31), (0.49, 0.29)), "better", "worse", None),
        (gaps((0.89, 0.2), (0.9, 0.1), (0.91, 0.3)), *["no change shown"] * 3),
        (gaps((0.85, 0.1), (0.851, 0.1), (0.849, 0.1)), "too small to name", "better", None),
    ],
)
def test_a_claim_needs_two_views_that_agree_over_training_seeds(arm, kid, gap, claim):
    """The way to the bound is 0.9 in KID, 0.5 in the critics' gap; `none` is at 0.9 and 0.2."""
    none = gaps((0.9, 0.2), (0.9, 0.2), (0.9, 0.2))
    found = Comparison(RESULT | {"cells": {"none": none, "ddo": arm}})
    assert (found.says("ddo", "kid_lite0"), found.says("ddo", "critic_gap")) == (kid, gap)
    assert found.claim("ddo") == (claim or "nothing can be concluded")
    assert columns(claims_table(found), "`ddo`")[1:] == [found.claim("ddo"), kid, gap]


def test_an_arm_of_one_finished_seed_claims_nothing_and_says_why():
    cells = {"none": {"0": cell(1, 0.9, 0.8)}, "ddo": {"0": cell(1, 0.9, 0.2, gap=0.1)}}
    found = Comparison(RESULT | {"cells": cells})
    assert found.says("ddo", "kid_lite0") == found.claim("ddo") == "fewer than two seeds"
    assert found.claim("none_equal_compute") == "fewer than two seeds"


def test_tables_of_changes_to_the_control_and_from_one_iteration_to_the_next():
    text = paired_table(FOUND)
    assert columns(text, "`ddo`")[1] == "**-0.40 ± 0.25**"
    assert columns(text, "`none_equal")[1] == "-0.20"
    assert "| `none` |" not in text
    text = paired_table(FOUND, "ddo")
    assert text.startswith("| minus `ddo` |")
    assert columns(text, "`none`")[1] == "**+0.40 ± 0.25**"
    assert "| `ddo` |" not in text
    text = iterations_table(FOUND)
    first, second = columns(text, "`ddo` | 0"), columns(text, "`ddo` | 1")
    assert first[2:5] == ["0.70 ± 0.00", "-0.30 ± 0.00", "better"]
    assert second[3:5] == ["-0.20 ± 0.00", "better"]
    assert columns(text, "`none` | 1")[4] == "no change shown"  # -0.1, 0, 0.1
    assert columns(text, "`none_equal_compute` | 0")[2:5] == ["0.80", "-0.20", ""]


def test_cost_counts_evaluations_and_takes_the_median_of_known_times():
    text = cost_table(RESULT, FOUND)
    # 160 steps of 8, two iterations
    assert columns(text, "`ddo`") == ["`ddo`", "10", "160", "8", "2,560", "21 (20 to 90)"]
    assert columns(text, "`none`")[5] == "20 (10 to 30)"
    assert columns(text, "`none_equal")[1:5] == ["27", "432", "3", "2,592"]


def test_page_says_what_is_missing_and_includes_what_was_tried():
    text = page(RESULT, "# Title\n\nA dead end.\n", {"ddo": "results/ddo.png"})
    assert "**Not finished, and left out: `none_equal_compute` of seed 0," in text
    assert "All run with `seed=1`.\n`ddo` runs with `weight=2`.\n" in text
    assert "![Samples of ddo](results/ddo.png)" in text
    assert text.endswith("## What was tried and failed\n\nA dead end.\n")
    assert "{" not in text
    assert "## Difference to `ddo`\n\n| minus `ddo` |" in text
    # KID and critic gap of `ddo`; `none_equal_compute` has one seed.
    assert "2 intervals are drawn" in text


def test_page_of_one_seed_has_no_intervals():
    cells = {name: {"0": cell(5, 1.0, 0.9)} for name in ("none", "ddo")}
    arms = {name: RESULT["arms"][name] for name in cells}
    text = page(RESULT | {"seeds": [0], "cells": cells, "arms": arms}, "# Title\n", {})
    assert "No cell is missing." in text
    assert columns(text, "`ddo` | 10")[5] == "5 (5 to 5)"
    assert "±" not in text.split("## The last iteration")[1]
    assert "intervals are drawn" not in text


# --- What is committed ---


def test_page_without_results_says_how_they_are_made(tmp_path):
    with pytest.raises(UserError, match=r"docs/results\.json: not made yet; run `make compare`"):
        rendered(tmp_path)


def test_committed_page_is_what_the_committed_numbers_say():
    if not (REPO / PAGE).exists() and not (REPO / RESULTS).exists():
        pytest.skip(f"{RESULTS} is not made yet: `make compare`")
    assert (REPO / PAGE).read_text() == rendered(REPO)
    pictures = {path.stem: path.stat().st_size for path in (REPO / PICTURES).glob("*.png")}
    assert pictures.keys() <= read_json(REPO / RESULTS)["arms"].keys()
    assert max(pictures.values()) < 100_000

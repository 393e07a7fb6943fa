"""Which model becomes the final one, and which rounds are named as worse."""

from __future__ import annotations

import pytest

from advloop.core.errors import UserError
from advloop.selection import change, kid_name, models_in_order, select, verdicts


def row(tune: float, *kid: float, network: str = "lite0") -> dict:
    return {
        f"kid_{network}": sum(kid) / len(kid),
        f"kid_{network}_ci95": 0.1,
        f"tune_kid_{network}": tune,
        f"tune_kid_{network}_ci95": 0.1,
        "seeds": {f"kid_{network}": list(kid), "critic_gap": [v / 2 for v in kid]},
    }


FLOORS = {"reals": row(0.0, 0.0, 0.0), "autoencoder": row(0.1, 0.1, 0.1)}


def test_iterations_stand_in_the_order_of_their_numbers_after_the_base_model():
    names = ["iter_10", "base", "reals", "iter_2", "autoencoder"]
    assert models_in_order({name: row(0.0, 0.0, 0.0) for name in names}) == [
        "base",
        "iter_2",
        "iter_10",
    ]


def test_the_model_of_the_lowest_tune_kid_is_selected_whatever_its_reported_one_is():
    rows = {"base": row(0.9, 0.1, 0.1), "iter_0": row(0.7, 0.9, 0.9), "iter_1": row(0.8, 0.5, 0.5)}
    assert select(FLOORS | rows) == "iter_0"


def test_of_equal_models_the_earlier_is_selected():
    rows = {"iter_1": row(0.5, 0.1, 0.1), "base": row(0.5, 0.9, 0.9), "iter_0": row(0.5, 0.2, 0.2)}
    assert select(rows) == "base"


def test_the_floor_and_the_bound_are_no_models():
    assert select(FLOORS | {"base": row(0.9, 0.9, 0.9)}) == "base"


def test_change_is_paired_by_sampling_seed():
    rows = {"base": row(0.0, 1.0, 2.0, 3.0), "iter_0": row(0.0, 0.9, 1.9, 2.9)}
    mean, interval = change(rows, "iter_0", "base", "kid_lite0")
    assert mean == pytest.approx(-0.1)
    assert interval == pytest.approx(0.0, abs=1e-9)  # the seeds differ, their changes do not


def test_every_round_is_compared_with_the_model_that_it_started_from():
    rows = FLOORS | {
        "base": row(0.0, 1.0, 1.0),
        "iter_0": row(0.0, 0.8, 0.8),
        "iter_1": row(0.0, 0.9, 0.9),
    }
    found = verdicts(rows)
    assert list(found) == ["iter_0", "iter_1"]
    changes = [[mean for mean, _ in metrics.values()] for metrics in found.values()]
    assert changes == [pytest.approx([-0.2, -0.1]), pytest.approx([0.1, 0.05])]


def test_the_kid_of_any_feature_network_is_found():
    assert kid_name(row(0.1, 0.2, 0.2, network="encoder")) == "kid_encoder"


def test_rows_without_values_by_seed_are_refused_in_one_line():
    rows = {"base": row(0.0, 1.0, 1.0), "iter_0": {"kid_lite0": 1.0}}
    with pytest.raises(UserError, match="iter_0 has no kid_lite0 by seed; run `dvc repro`"):
        change(rows, "iter_0", "base", "kid_lite0")
    with pytest.raises(UserError, match="0 KID columns"):
        kid_name({"test_noise_loss": 0.5})

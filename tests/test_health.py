"""When the discriminator's accuracy is worth a warning."""

from __future__ import annotations

import pytest

from advloop.health import health_warning


@pytest.mark.parametrize("accuracy", [0.9001, 0.95, 1.0])
def test_an_accuracy_above_the_band_is_called_too_strong(accuracy):
    warning = health_warning(accuracy)
    assert warning is not None
    assert "too strong" in warning
    assert f"{accuracy:.4f}" in warning
    assert "train_disc.epochs" in warning


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.4999])
def test_an_accuracy_below_the_band_is_called_too_weak(accuracy):
    warning = health_warning(accuracy)
    assert warning is not None
    assert "too weak" in warning
    assert f"{accuracy:.4f}" in warning
    assert "train_disc.epochs" in warning


@pytest.mark.parametrize("accuracy", [0.5, 0.58, 0.7, 0.9])
def test_an_accuracy_in_the_band_or_on_its_edge_is_worth_no_warning(accuracy):
    assert health_warning(accuracy) is None


@pytest.mark.parametrize("accuracy", [0.2, 0.95])
def test_a_warning_is_one_line(accuracy):
    assert len(str(health_warning(accuracy)).splitlines()) == 1

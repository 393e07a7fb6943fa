"""Histories: the best row, CSV files, printed lines, and warnings about the discriminator."""

from __future__ import annotations

import pandas as pd
import pytest

from advloop.training.history import (
    best_row,
    diffusion_report,
    discriminator_report,
    health_warning,
    write_history,
)

TRAIN = {
    "epoch": 5,
    "learning_rate": 1e-4,
    "loss": 0.112345,
    "noise_loss": 0.098765,
    "discriminator_loss": 0.013580,
    "viability_score": 0.712345,
    "gradient_ratio": 3.0,
    "grad_norm": 0.5,
}
VAL = {
    "val_loss": 0.108765,
    "val_noise_loss": 0.097654,
    "val_discriminator_loss": 0.011111,
    "val_viability_score": 0.723456,
}
TRAIN_LINES = """\
Epoch 5/50
Train Loss: 0.112345
  noise_loss: 0.098765
  discriminator_loss: 0.013580
  viability_score: 0.712345"""
VAL_LINES = """\
Val Loss: 0.108765
  val_noise_loss: 0.097654
  val_discriminator_loss: 0.011111
  val_viability_score: 0.723456"""


def test_best_row_has_the_lowest_validation_loss_and_is_the_first_if_tied():
    rows = [{"epoch": k, "val_loss": loss} for k, loss in enumerate([3.0, 1.0, 1.0, 2.0])]
    assert best_row([{"epoch": 9}, *rows]) is rows[1]
    assert best_row([{"epoch": 1}]) == {}


def test_line_of_train_disc_is_that_of_the_reference():
    losses = {"train_loss": 0.6234, "train_accuracy": 0.7123}
    losses |= {"val_loss": 0.5891, "val_accuracy": 0.7234}
    assert discriminator_report({"epoch": 1, "learning_rate": 1e-4, **losses}, 50) == (
        "Epoch 1/50: Train Loss=0.6234, Train Acc=0.7123, Val Loss=0.5891, Val Acc=0.7234"
    )


def test_lines_of_train_diffusion_are_those_of_the_reference():
    assert diffusion_report(TRAIN | VAL, 50) == f"{TRAIN_LINES}\n{VAL_LINES}"
    assert diffusion_report(TRAIN, 50) == TRAIN_LINES  # an epoch without validation


def test_history_has_a_row_per_epoch_and_leaves_missing_values_empty(tmp_path):
    path = tmp_path / "folder" / "metrics.csv"
    rows = [
        {"epoch": 1, "learning_rate": 1e-4, "loss": 0.5},
        {"epoch": 2, "learning_rate": 1e-4, "loss": 0.25, "val_loss": 0.125},
        {"epoch": 3, "learning_rate": 1e-4, "loss": 1 / 3},
    ]
    write_history(path, rows)
    assert path.read_bytes() == (
        b"epoch,learning_rate,loss,val_loss\n"
        b"1,0.0001,0.5,\n"
        b"2,0.0001,0.25,0.125\n"
        b"3,0.0001,0.33333333,\n"
    )


def test_history_has_the_columns_of_its_fullest_row_and_reads_back_to_eight_digits(tmp_path):
    write_history(tmp_path / "metrics.csv", [TRAIN, TRAIN | VAL])
    read = pd.read_csv(tmp_path / "metrics.csv")
    assert list(read.columns) == [*TRAIN, *VAL]
    assert read.iloc[1].to_dict() == pytest.approx(TRAIN | VAL, rel=1e-7)


def test_history_is_written_whole_each_time_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [TRAIN, TRAIN | VAL | {"epoch": 6}]
    write_history(path, rows)
    first = path.read_bytes()
    write_history(path, [*rows, TRAIN | {"epoch": 7}])
    assert path.read_bytes().startswith(first)
    write_history(path, rows)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("accuracy", "says"),
    [
        (0.3, "too weak"),
        (0.4999, "too weak"),
        (0.5, None),
        (0.9, None),
        (0.9001, "too strong"),
        (1.0, "too strong"),
    ],
)
def test_accuracy_outside_its_band_is_worth_a_warning_in_one_line(accuracy, says):
    warning = health_warning(accuracy)
    assert (warning is None) == (says is None)
    if warning:
        assert says in warning
        assert f"{accuracy:.4f}" in warning
        assert "train_disc.epochs" in warning
        assert "\n" not in warning

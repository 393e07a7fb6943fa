"""Histories on disk, and the lines that the stages print."""

from __future__ import annotations

import pandas as pd
import pytest

from advloop.history import diffusion_report, discriminator_report, write_history

TRAIN = {
    "epoch": 5,
    "learning_rate": 1e-4,
    "loss": 0.112345,
    "noise_loss": 0.098765,
    "discriminator_loss": 0.013580,
    "viability_score": 0.712345,
    "grad_norm": 0.5,
}
VAL = {
    "val_loss": 0.108765,
    "val_noise_loss": 0.097654,
    "val_discriminator_loss": 0.011111,
    "val_viability_score": 0.723456,
}
TRAIN_BLOCK = """\
Epoch 5/50
Train Loss: 0.112345
  noise_loss: 0.098765
  discriminator_loss: 0.013580
  viability_score: 0.712345"""
VAL_BLOCK = """\
Val Loss: 0.108765
  val_noise_loss: 0.097654
  val_discriminator_loss: 0.011111
  val_viability_score: 0.723456"""


def test_the_line_of_train_disc_is_that_of_the_reference():
    row = {
        "epoch": 1,
        "learning_rate": 1e-4,
        "train_loss": 0.6234,
        "train_accuracy": 0.7123,
        "val_loss": 0.5891,
        "val_accuracy": 0.7234,
    }
    assert discriminator_report(row, 50) == (
        "Epoch 1/50: Train Loss=0.6234, Train Acc=0.7123, Val Loss=0.5891, Val Acc=0.7234"
    )


def test_the_block_of_train_diffusion_is_that_of_the_reference():
    assert diffusion_report(TRAIN | VAL, 50) == f"{TRAIN_BLOCK}\n{VAL_BLOCK}"


def test_an_epoch_without_validation_prints_no_validation_lines():
    assert diffusion_report(TRAIN, 50) == TRAIN_BLOCK


def test_the_base_model_prints_no_lines_of_a_discriminator():
    row = {"epoch": 1.0, "loss": 0.5, "noise_loss": 0.5, "val_loss": 0.4, "val_noise_loss": 0.4}
    assert diffusion_report(row, 3) == (
        "Epoch 1/3\nTrain Loss: 0.500000\n  noise_loss: 0.500000\n"
        "Val Loss: 0.400000\n  val_noise_loss: 0.400000"
    )


def test_a_history_has_one_row_an_epoch_and_empties_where_validation_did_not_run(tmp_path):
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


def test_the_columns_of_a_history_are_those_of_its_fullest_row_in_their_order(tmp_path):
    write_history(tmp_path / "metrics.csv", [TRAIN, TRAIN | VAL])
    assert list(pd.read_csv(tmp_path / "metrics.csv").columns) == [*TRAIN, *VAL]


def test_a_history_is_rewritten_whole_to_the_same_bytes(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [TRAIN, TRAIN | VAL | {"epoch": 6}]
    write_history(path, rows)
    first = path.read_bytes()
    write_history(path, [*rows, TRAIN | {"epoch": 7}])
    assert path.read_bytes().startswith(first)
    assert len(path.read_bytes().splitlines()) == 4
    write_history(path, rows)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays behind


def test_a_history_reads_back_to_eight_digits(tmp_path):
    write_history(tmp_path / "metrics.csv", [TRAIN | VAL])
    read = pd.read_csv(tmp_path / "metrics.csv").iloc[0].to_dict()
    assert read == pytest.approx(TRAIN | VAL, rel=1e-7)

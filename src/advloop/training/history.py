"""Histories of training: the best row, CSV files, printed lines, advice on the discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from advloop.core.files import atomic_path

Row = dict[str, float]
"""The values of one epoch, by name."""

NO_TERMS = ("epoch", "learning_rate", "loss", "grad_norm", "gradient_ratio")


def best_row(history: Sequence[Row]) -> Row:
    """The row with the lowest val_loss (the first, if tied), or {} if no row has one."""
    measured = [row for row in history if "val_loss" in row]
    return min(measured, key=lambda row: row["val_loss"]) if measured else {}


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write a whole CSV file of one row per epoch. Missing values stay empty."""
    import pandas as pd

    columns: dict[str, None] = {}
    for row in sorted(rows, key=len, reverse=True):
        columns |= dict.fromkeys(row)
    with atomic_path(path) as temporary:
        pd.DataFrame(list(rows), columns=list(columns)).to_csv(
            temporary, index=False, float_format="%.8g", lineterminator="\n"
        )


def diffusion_report(row: Mapping[str, float], epochs: int) -> str:
    """The lines for one epoch of train_diffusion: losses and the objective's terms."""
    terms = [name for name in row if name not in NO_TERMS and not name.startswith("val_")]
    lines = [f"Epoch {row['epoch']:.0f}/{epochs}", f"Train Loss: {row['loss']:.6f}"]
    lines += [f"  {name}: {row[name]:.6f}" for name in terms]
    if "val_loss" in row:
        lines.append(f"Val Loss: {row['val_loss']:.6f}")
        measured = [f"val_{name}" for name in terms if f"val_{name}" in row]
        lines += [f"  {name}: {row[name]:.6f}" for name in measured]
    return "\n".join(lines)


def discriminator_report(row: Mapping[str, float], epochs: int) -> str:
    """The line for one epoch of train_disc, worded as in the reference implementation."""
    return (
        f"Epoch {row['epoch']:.0f}/{epochs}: "
        f"Train Loss={row['train_loss']:.4f}, Train Acc={row['train_accuracy']:.4f}, "
        f"Val Loss={row['val_loss']:.4f}, Val Acc={row['val_accuracy']:.4f}"
    )


TOO_STRONG, TOO_WEAK = 0.9, 0.5


def health_warning(val_accuracy: float) -> str | None:
    """Advice if the validation accuracy, in [0, 1], is outside the band, else None."""
    if val_accuracy > TOO_STRONG:
        return (
            f"discriminator too strong (validation accuracy {val_accuracy:.4f} > {TOO_STRONG}): "
            "where its gradient moves the model, it teaches little; lower train_disc.epochs or "
            "discriminator.channels, raise discriminator.dropout or train_disc.r1_weight, or set "
            "train_disc.stop_accuracy"
        )
    if val_accuracy < TOO_WEAK:
        return (
            f"discriminator too weak (validation accuracy {val_accuracy:.4f} < {TOO_WEAK}): "
            "it tells fakes no better than chance; raise train_disc.epochs or generate.num_samples"
        )
    return None

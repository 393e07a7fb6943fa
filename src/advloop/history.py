"""Per-epoch histories: CSV files, and the lines that a stage prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from advloop.core.io import atomic_path

TERMS = ("noise_loss", "discriminator_loss", "viability_score")


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """One CSV row an epoch, rewritten whole; a value that an epoch has not is left empty."""
    columns: dict[str, None] = {}
    for row in sorted(rows, key=len, reverse=True):
        columns |= dict.fromkeys(row)
    with atomic_path(path) as temporary:
        pd.DataFrame(list(rows), columns=list(columns)).to_csv(
            temporary, index=False, float_format="%.8g", lineterminator="\n"
        )


def diffusion_report(row: Mapping[str, float], epochs: int) -> str:
    """The reference's block for one epoch of train_diffusion; validation where it ran."""
    lines = [f"Epoch {row['epoch']:.0f}/{epochs}", f"Train Loss: {row['loss']:.6f}"]
    lines += [f"  {name}: {row[name]:.6f}" for name in TERMS if name in row]
    if "val_loss" in row:
        lines.append(f"Val Loss: {row['val_loss']:.6f}")
        lines += [f"  val_{name}: {row[f'val_{name}']:.6f}" for name in TERMS if name in row]
    return "\n".join(lines)


def discriminator_report(row: Mapping[str, float], epochs: int) -> str:
    """The reference's line for one epoch of train_disc."""
    return (
        f"Epoch {row['epoch']:.0f}/{epochs}: "
        f"Train Loss={row['train_loss']:.4f}, Train Acc={row['train_accuracy']:.4f}, "
        f"Val Loss={row['val_loss']:.4f}, Val Acc={row['val_accuracy']:.4f}"
    )

"""The summary of a run as a table."""

from __future__ import annotations

from collections.abc import Mapping

Rows = Mapping[str, Mapping[str, float]]

COLUMNS = {
    "kid_lite0": "KID (lite0)",
    "test_noise_loss": "test noise loss",
    "disc_val_accuracy": "D accuracy",
    "diffusion_val_viability_score": "viability",
}
NAMES = {
    "reals": "real against real (floor)",
    "autoencoder": "real through the autoencoder (bound)",
    "base": "base model",
}


def in_order(rows: Rows) -> Rows:
    """Floor, bound, base model, then the iterations by number; JSON keeps no such order."""
    iterations = sorted((n for n in rows if n.startswith("iter_")), key=lambda n: int(n[5:]))
    return {name: rows[name] for name in (*NAMES, *iterations)}


def markdown_table(rows: Rows) -> str:
    """One line a row: what was measured on evaluation-only images, then D's health."""
    lines = [
        f"| model | {' | '.join(COLUMNS.values())} |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, row in rows.items():
        lines.append(_line(NAMES.get(name, name), row))
    return "\n".join(lines)


def _line(title: str, row: Mapping[str, float]) -> str:
    cells = []
    for column in COLUMNS:
        text = f"{row[column]:.4f}" if column in row else ""
        interval = row.get(f"{column}_ci95")
        cells.append(text if interval is None else f"{text} ± {interval:.4f}")
    return f"| {title} | {' | '.join(cells)} |"

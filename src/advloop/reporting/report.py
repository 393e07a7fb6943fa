"""The summary of a run: one metrics file, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advloop.selection import START, Rows, iteration_of, kid_name, models_in_order, select, verdicts

COLUMNS = {
    "kid": "KID",
    "critic_gap": "critic gap",
    "critic_auc": "critic AUC",
    "coverage": "coverage",
    "precision": "precision",
    "disc_val_accuracy": "D accuracy",
    "diffusion_val_viability_score": "viability",
}
NAMES = {
    "reals": "real against real (floor)",
    "autoencoder": "real through the autoencoder (bound)",
    "base": "base model",
}
TRAINING = ("disc_", "diffusion_")


def in_order(rows: Rows) -> Rows:
    """Floor, bound, base model, then the iterations by number; JSON keeps no such order."""
    return {name: rows[name] for name in ("reals", "autoencoder", *models_in_order(rows))}


def summary(rows: Rows) -> dict[str, Any]:
    """What ``dvc metrics`` shows: ``held_out`` figures of all models, then ``training``.

    held_out.final is the selected model, and held_out.final.iteration its number, -1 for
    the base model. Each round has the paired changes of KID and of the critics' gap,
    change_… and _ci95.
    """
    flat = {
        name: {k: v for k, v in row.items() if isinstance(v, int | float)}
        for name, row in rows.items()
    }
    for name, changes in verdicts(rows).items():
        for metric, (mean, interval) in changes.items():
            column = f"change_{metric}"
            flat[name] |= {column: round(mean, 6), f"{column}_ci95": round(interval, 6)}
    held_out = {
        name: {k: v for k, v in row.items() if not k.startswith(TRAINING)}
        for name, row in flat.items()
    }
    final = select(rows)
    row = {k: v for k, v in held_out[final].items() if not k.startswith("change_")}
    training = {
        name: {k: v for k, v in row.items() if k.startswith(TRAINING)} for name, row in flat.items()
    }
    return {
        "held_out": {**held_out, "final": row | {"iteration": iteration_of(final)}},
        "training": {name: row for name, row in training.items() if row},
    }


def rounds_csv(rows: Rows) -> str:
    """What ``dvc plots`` draws: a line a model, -1 the base model, then the rounds by number.

    KID and the critics' gap on the test images, each with its interval and the floor, which is
    empty where it was not measured.
    """
    figures = {"kid": kid_name(rows[START]), "critic_gap": "critic_gap"}
    heads = (f"{name},{name}_ci95,{name}_floor" for name in figures)
    lines = [f"iteration,{','.join(heads)}"]
    for name in models_in_order(rows):
        row = rows[name]
        cells = (
            f"{row[found]},{row[f'{found}_ci95']},{rows['reals'].get(found, '')}"
            for found in figures.values()
        )
        lines.append(f"{iteration_of(name)},{','.join(cells)}")
    return "\n".join([*lines, ""])


def worse_rounds(rows: Rows) -> list[str]:
    """A line for each round and figure that rose by more than its paired 95 % interval."""
    return [
        f"{name} made {metric} of the test images worse by {mean:.4f} ± {interval:.4f} "
        "(paired by sampling seed)"
        for name, changes in verdicts(rows).items()
        for metric, (mean, interval) in changes.items()
        if mean > interval
    ]


def markdown_table(content: Mapping[str, Any]) -> str:
    """The table of a ``summary``: figures of evaluation-only images, then D's health."""
    rows = {
        name: {**row, **content["training"].get(name, {})}
        for name, row in content["held_out"].items()
        if name != "final"
    }
    network = kid_name(rows["base"]).removeprefix("kid_")
    lines = [
        f"| model | {' | '.join(COLUMNS.values())} |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, row in in_order(rows).items():
        cells = (cell(row, column, network) for column in COLUMNS)
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: Mapping[str, float], column: str, network: str) -> str:
    """A figure with its interval where it has one, by its name without that of the features.

    Empty where the row has no such figure.
    """
    found = column if column in row else f"{column}_{network}"
    if found not in row:
        return ""
    text = f"{row[found]:.4f}"
    interval = row.get(f"{found}_ci95")
    return text if interval is None else f"{text} ± {interval:.4f}"

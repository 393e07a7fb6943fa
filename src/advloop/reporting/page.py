"""reports/report.html: all of a run on one page that needs nothing beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.reporting import charts, graph, page_pictures
from advloop.reporting.curves import Curve, read_curves
from advloop.reporting.report import NAMES, cell, in_order, summary
from advloop.reporting.template import render
from advloop.reporting.verdict import BETTER, UNCLEAR, WORSE, Finding, Verdict, judge
from advloop.selection import Rows, iteration_of, kid_name, models_in_order
from advloop.shown import DIFFUSION, DISCRIMINATOR, FACTS, read_facts

FIGURES = {  # of the metrics' table if a model has it, by its name without that of the features
    "kid": "KID ↓",
    "tune_kid": "tune KID ↓ (selects)",
    "class_kid": "class by class, KID ↓",
    "critic_gap": "critic gap ↓",
    "critic_auc": "critic AUC ↓",
    "critic_accuracy": "critic accuracy ↓",
    "precision": "precision ↑",
    "density": "density ↑",
    "recall": "recall ↑",
    "coverage": "coverage ↑",
    "memorisation_ratio": "memorisation ratio",
    "test_noise_loss": "noise loss ↓",
    "disc_val_accuracy": "D accuracy",
    "diffusion_val_viability_score": "viability",
}
CURVES = {  # title: the file, and its columns by label
    "Discriminator loss (BCE)": (DISCRIMINATOR, "train_loss", "val_loss"),
    "Discriminator accuracy": (DISCRIMINATOR, "train_accuracy", "val_accuracy"),
    "Noise loss (MSE)": (DIFFUSION, "noise_loss", "val_noise_loss"),
    "Discriminator loss of the diffusion model": (
        DIFFUSION,
        "discriminator_loss",
        "val_discriminator_loss",
    ),
    "Viability score": (DIFFUSION, "viability_score", "val_viability_score"),
}
TONES = {BETTER: "better", WORSE: "worse", UNCLEAR: ""}


def page(rows: Rows, shown: Path, params: Mapping[str, Any]) -> str:
    """The page of an evaluation's ``rows``; the same bytes for the same arguments.

    shown: what stage evaluate wrote of each model. params: values and sections of params.yaml.
    Raises UserError where one of the files is not as that stage writes it.
    """
    content = summary(rows)
    verdict = judge(rows)
    models = models_in_order(rows)
    facts = {name: read_facts(shown / name) for name in models}
    judged = {name: f.viability for name, f in facts.items() if f.viability}
    for name in models:
        if iteration_of(name) != -1 and name not in judged:
            path = shown / name / FACTS
            raise UserError(f"{path}: no discriminator judged {name}; remake it with `dvc repro`")
    stages = graph.draw_graph(len(models) - 1)
    return render(
        "report.html",
        run=_run(params),
        verdict=_verdict(verdict),
        metrics=_metrics(content, verdict.selected),
        rounds=_rounds(verdict),
        intervals=_intervals(content),
        curves=_curves(shown, list(judged)),
        samples=[page_pictures.samples(shown, name) for name in ("reals", *models)],
        neighbours=[
            page_pictures.neighbours(shown, name, facts[name].neighbours) for name in models
        ],
        viability=[page_pictures.viability(shown, name, found) for name, found in judged.items()],
        stages={
            "width": stages.width,
            "height": stages.height,
            "boxes": stages.boxes,
            "arrows": stages.arrows,
            "text": "Stages and the main ways between them: "
            + "; ".join(f"{a.source} to {a.target}" for a in stages.arrows)
            + ".",
        },
        stage_box={"width": graph.WIDTH, "height": graph.HEIGHT},
        box={
            "width": charts.WIDTH,
            "height": charts.HEIGHT,
            "left": charts.LEFT,
            "right": charts.WIDTH - charts.RIGHT,
            "top": charts.TOP,
            "bottom": charts.HEIGHT - charts.BOTTOM,
        },
        parameters=_parameters(params),
        timings=[],
    )


def _run(params: Mapping[str, Any]) -> dict[str, Any]:
    names = ("exp_name", "scale", "num_iterations", "seed")
    return {name: params[name] for name in names} | {"objective": params["objective"]["name"]}


def decimals(half: float) -> int:
    """How many show three digits of an interval's half, and 4 of one that is 0."""
    return min(4, max(0, 2 - math.floor(math.log10(half)))) if half else 4


def _finding(found: Finding) -> dict[str, str]:
    places = decimals(found.half)
    return {
        "figure": found.figure,
        "before": f"{found.before:.{places}f}",
        "after": f"{found.after:.{places}f}",
        "change": f"{found.change:+.{places}f} ± {found.half:.{places}f}",
        "says": found.says,
        "tone": TONES[found.says],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    says = {found.says for found in verdict.found}
    tone = BETTER if BETTER in says and WORSE not in says else WORSE if WORSE in says else UNCLEAR
    return {
        "headline": verdict.headline,
        "tone": TONES[tone],
        "found": [_finding(found) for found in verdict.found],
        "compared": NAMES.get(verdict.compared, verdict.compared),
        "selected": NAMES.get(verdict.selected, verdict.selected),
        "seeds": verdict.seeds,
        "warnings": verdict.warnings,
    }


def _metrics(content: Mapping[str, Any], selected: str) -> dict[str, Any]:
    held_out = {name: row for name, row in content["held_out"].items() if name != "final"}
    network = kid_name(held_out["base"]).removeprefix("kid_")
    # The models first: a phone shows the first columns alone.
    models = {
        name: {**held_out[name], **content["training"].get(name, {})}
        for name in (*models_in_order(held_out), "reals", "autoencoder")
    }
    return {
        "network": network,
        "heads": ["figure", *(NAMES.get(name, name) for name in models)],
        "rows": [
            (title, *cells)
            for column, title in FIGURES.items()
            if any(cells := [cell(row, column, network) for row in models.values()])
        ],
        "shaded": 1 + list(models).index(selected),
    }


def _rounds(verdict: Verdict) -> dict[str, Any]:
    heads = ["round", "KID, change", "says", "critic gap, change", "says"]
    rows = []
    for name, found in verdict.rounds.items():
        shown = map(_finding, found)
        rows.append((name, *(part for f in shown for part in (f["change"], f["says"]))))
    return {"heads": heads, "rows": rows}


def _intervals(content: Mapping[str, Any]) -> list[charts.Chart]:
    rows = in_order({k: v for k, v in content["held_out"].items() if k != "final"})
    titles = {kid_name(rows["base"]): "KID by model", "critic_gap": "Critic gap by model"}
    drawn = []
    for figure, title in titles.items():
        ends = f"{figure}_ci95"
        measured = {name: row for name, row in rows.items() if {figure, ends} <= set(row)}
        values = {name: (row[figure], row[ends]) for name, row in measured.items()}
        drawn.append(charts.interval_chart(title, values))
    return drawn


def _curves(shown: Path, names: Sequence[str]) -> list[charts.Chart]:
    drawn = []
    for title, (file, train, val) in CURVES.items():
        rounds: dict[str, dict[str, Curve]] = {}
        for name in names:
            found = read_curves(shown / name / file, train, val)
            rounds[name] = {"training": found[train], "validation": found[val]}
        drawn.append(charts.line_chart(title, rounds))
    return drawn


def _parameters(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Values that belong to no section first."""
    single = {key: value for key, value in params.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in params.items() if isinstance(value, Mapping)}
    return [
        {"name": name, "rows": [(key, _value(value)) for key, value in rows.items()]}
        for name, rows in ({"run": single} | sections).items()
    ]


def _value(value: Any) -> str:
    """As YAML has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)

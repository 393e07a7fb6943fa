"""reports/report.html: all of a run on one page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from advloop import charts, graph
from advloop.curves import Curve, read_curves
from advloop.errors import UserError
from advloop.grids import load_png
from advloop.report import NAMES, cell, in_order, summary
from advloop.selection import Rows, iteration_of, kid_name, models_in_order
from advloop.shown import (
    DIFFUSION,
    DISCRIMINATOR,
    NEIGHBOURS,
    SAMPLES,
    VIABILITY,
    Viability,
    read_facts,
)
from advloop.timings import Timing
from advloop.verdict import BETTER, UNCLEAR, WORSE, Finding, Verdict, judge

TEMPLATES = Path(__file__).with_name("templates")
BEGIN, END = "<!-- timings: begin -->", "<!-- timings: end -->"
COLUMNS = {  # of the metrics' table, by the name of the figure without that of the features
    "kid": "KID ↓",
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


@dataclass(frozen=True)
class Picture:
    """data: a PNG in base64."""

    data: str
    width: int
    height: int


def environment() -> jinja2.Environment:
    """Whatever is shown is escaped, and a name that the page has not is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


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
            raise UserError(f"{shown / name}: no discriminator judged it; run `dvc repro`")
    stages = graph.draw_graph(len(models) - 1)
    return (
        environment()
        .get_template("report.html")
        .render(
            run=_run(params),
            verdict=_verdict(verdict),
            metrics=_metrics(content, verdict.selected),
            rounds=_rounds(verdict),
            intervals=_intervals(content),
            curves=_curves(shown, list(judged)),
            samples=[_samples(shown, name) for name in ("reals", *models)],
            neighbours=[
                {
                    "name": NAMES.get(name, name),
                    "picture": picture(shown / name / NEIGHBOURS),
                    "alt": f"{len(facts[name].neighbours)} samples of {NAMES.get(name, name)}, each "
                    "above its nearest training image; the table below names them.",
                    "rows": [
                        {"file": n.file, "distance": f"{n.distance:.3f}"}
                        for n in facts[name].neighbours
                    ],
                }
                for name in models
            ],
            viability=[_viability(shown, name, found) for name, found in judged.items()],
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
            begin=Markup(BEGIN),
            end=Markup(END),
        )
    )


def with_timings(text: str, timings: Sequence[Timing]) -> str:
    """The page ``text`` with these times in the block that is left for them.

    All other bytes stay. ValueError where the page has no such block.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("no block for timings")
    rows = [
        {
            "name": t.stage,
            "cells": [f"{t.seconds:.1f}", f"{t.memory:.0f}", t.finished, t.machine],
            "selected": False,
        }
        for t in timings
    ]
    total = f"{sum(t.seconds for t in timings):.0f}"
    block = environment().get_template("timings.html").render(timings=rows, total=total)
    return f"{head}{begin}\n{block}{end}{tail}"


def picture(path: Path) -> Picture:
    height, width, _ = load_png(path).shape
    return Picture(base64.b64encode(path.read_bytes()).decode(), width, height)


def _run(params: Mapping[str, Any]) -> dict[str, Any]:
    names = ("exp_name", "scale", "num_iterations", "seed")
    return {name: params[name] for name in names} | {"objective": params["objective"]["name"]}


def _finding(found: Finding) -> dict[str, str]:
    return {
        "figure": found.figure,
        "before": f"{found.before:.4f}",
        "after": f"{found.after:.4f}",
        "change": f"{found.change:+.4f} ± {found.half:.4f}",
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
    rows = [
        {
            "name": NAMES.get(name, name),
            "selected": name == selected,
            "cells": [
                cell({**row, **content["training"].get(name, {})}, column, network)
                for column in COLUMNS
            ],
        }
        for name, row in in_order(held_out).items()
    ]
    return {"network": network, "heads": ["model", *COLUMNS.values()], "rows": rows}


def _rounds(verdict: Verdict) -> dict[str, Any]:
    heads = ["round", "KID, change", "says", "critic gap, change", "says"]
    rows = []
    for name, found in verdict.rounds.items():
        shown = map(_finding, found)
        cells = [part for f in shown for part in (f["change"], f["says"])]
        rows.append({"name": name, "cells": cells, "selected": name == verdict.selected})
    return {"heads": heads, "rows": rows}


def _intervals(content: Mapping[str, Any]) -> list[charts.Chart]:
    rows = in_order({k: v for k, v in content["held_out"].items() if k != "final"})
    titles = {kid_name(rows["base"]): "KID by model", "critic_gap": "Critic gap by model"}
    return [
        charts.interval_chart(
            title,
            {name: (row[f], row[f"{f}_ci95"]) for name, row in rows.items() if f in row},
        )
        for f, title in titles.items()
    ]


def _curves(shown: Path, names: Sequence[str]) -> list[charts.Chart]:
    drawn = []
    for title, (file, train, val) in CURVES.items():
        rounds: dict[str, dict[str, Curve]] = {}
        for name in names:
            found = read_curves(shown / name / file, train, val)
            rounds[name] = {"training": found[train], "validation": found[val]}
        drawn.append(charts.line_chart(title, rounds))
    return drawn


def _samples(shown: Path, name: str) -> dict[str, Any]:
    if name == "reals":
        title, alt = "Real test images", "A grid of real test images."
    else:
        title = NAMES.get(name, name)
        alt = f"A grid of samples of {title}, of the same noise as in the other models' grids."
    return {"name": title, "alt": alt, "picture": picture(shown / name / SAMPLES)}


def _viability(shown: Path, name: str, found: Viability) -> dict[str, Any]:
    most, least = (
        ", ".join(f"{value:.3f}" for value in side) for side in (found.most, found.least)
    )
    return {
        "name": name,
        "picture": picture(shown / name / VIABILITY),
        "alt": f"{len(found.most)} samples of {name} that its discriminator takes most for real, "
        "above as many that it takes least for real.",
        "caption": f"Most viable, above: {most}. Least viable, below: {least}.",
    }


def _parameters(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Values that belong to no section first."""
    single = {key: value for key, value in params.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in params.items() if isinstance(value, Mapping)}
    return [
        {"name": name, "rows": [(key, _value(value)) for key, value in rows.items()]}
        for name, rows in ({"run": single} | sections).items()
    ]


def _value(value: Any) -> str:
    return "null" if value is None else str(value)

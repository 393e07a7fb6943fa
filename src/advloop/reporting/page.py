"""reports/report.html: a whole run on one page, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advloop.core.errors import UserError
from advloop.core.rounds import BASE, EVALUATION, Round
from advloop.evaluation.agreement import Finding
from advloop.evaluation.gallery import FACTS, read_facts
from advloop.evaluation.results import VIEWS, Results
from advloop.evaluation.scores import names, with_interval
from advloop.evaluation.summary import TITLES, accuracy, cell, exam_rows
from advloop.reporting import charts, pictures
from advloop.reporting.curves import Curve, read_curves
from advloop.reporting.template import render
from advloop.reporting.verdict import HELPED, HURT, Verdict, conclude
from advloop.training.history import NO_TERMS

LOSSES = {"bce": "BCE", "relativistic": "pairs"}  # of train_disc
TERMS = {  # any other term of an objective has its own name for a title
    "noise_loss": "Noise loss (MSE)",
    "discriminator_loss": "Discriminator loss of the diffusion model",
    "ddo_loss": "DDO loss",
    "viability_score": "Viability score of one-step predictions",
    "generator_loss": "Generator loss (pairs)",
    "margin": "Margin between reals and samples",
    "discriminator_accuracy": "Held-out accuracy of the discriminator in play",
    "discriminator_steps": "Discriminator steps for one of the model's",
    "penalty": "Gradient penalties of the discriminator",
    "discriminator_grad_norm": "Gradient norm of the discriminator",
    "sample_grad_norm": "Gradient norm at a sample",
}
TERMS_OF_SAMPLES = TERMS | {"viability_score": "Viability score of samples"}
TONES = {HELPED: "better", HURT: "worse"}
ARROW = " ↓"  # every view is better if it is lower


def page(
    results: Results, reals: Path, base: Path, rounds: Sequence[Round], params: Mapping[str, Any]
) -> str:
    """The page of a run: the same bytes for the same run.

    reals, base: folders of the real images' scores and of the base model. params: values and
    sections of params.yaml. UserError if a file of the run is missing or damaged.
    """
    verdict = conclude(results)
    folders = {BASE: base / EVALUATION, **{one.name: one.evaluation for one in rounds}}
    drawn = folders | pictures.base_folders(results, base)
    facts = {name: read_facts(folder) for name, folder in folders.items()}
    judged = {name: f.viability for name, f in facts.items() if f.viability}
    for one in rounds:
        if one.name not in judged:
            raise UserError(
                f"{one.evaluation / FACTS}: no discriminator judged {one.name}; remake it with "
                "`dvc repro`"
            )
    return render(
        "report.html",
        run=_run(params),
        verdict=_verdict(verdict),
        strips=pictures.comparison(reals, drawn, verdict),
        exam=_exam(results),
        metrics=_metrics(results, verdict.selected),
        rounds=_rounds(verdict),
        changes=_changes(verdict),
        curves=_curves(rounds, params["train_disc"]["loss"]),
        samples=[
            pictures.reals(reals),
            *(pictures.samples(folder, name) for name, folder in drawn.items()),
        ],
        neighbours=[
            pictures.neighbours(folder, name, facts[name].neighbours)
            for name, folder in folders.items()
        ],
        viability=[
            pictures.viability(folders[name], name, found) for name, found in judged.items()
        ],
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
        commit="",
    )


def _run(params: Mapping[str, Any]) -> dict[str, Any]:
    run = ("exp_name", "scale", "num_iterations", "seed")
    objective = params["objective"]
    role = "takes part in" if objective["uses_discriminator"] else "takes no part in"
    data = {"data": params["data"]["source"], "objective": objective["name"], "role": role}
    return {name: params[name] for name in run} | data


def _finding(found: Finding) -> dict[str, str]:
    return {
        "title": found.title,
        "before": with_interval(found.before, None),
        "after": with_interval(found.after, None),
        "change": ("+" if found.change > 0 else "") + with_interval(found.change, found.half),
        "says": found.says,
        "counts": "yes" if found.valid else "no",
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "headline": verdict.headline,
        "reasons": verdict.reasons,
        "tone": TONES.get(verdict.kind, ""),
        "heads": ["view", "base model", "compared", "change", "says", "passed the exam"],
        "rows": [
            tuple(row[key] for key in ("title", "before", "after", "change", "says", "counts"))
            for row in map(_finding, verdict.found)
        ],
        "compared": TITLES.get(verdict.compared, verdict.compared),
        "selected": TITLES.get(verdict.selected, verdict.selected),
        "seeds": verdict.seeds,
        "warnings": verdict.warnings,
    }


def _exam(results: Results) -> dict[str, Any]:
    exam = results.exam
    titles = {view: results.base.get(view).metric.title for view in VIEWS}
    return {
        "images": exam.images,
        "heads": ["images", *(f"{title}{ARROW}" for title in titles.values())],
        "rows": exam_rows(results),
        "failures": [
            (titles[view], ", ".join(map(str, exam.failures(view))) or "nothing") for view in VIEWS
        ],
    }


def _metrics(results: Results, selected: str) -> dict[str, Any]:
    # The models come first, because a phone shows only the first columns.
    floor, bound, *models = results.all
    columns = (*models, floor, bound)
    scores = [score for score in names(results.all) if score.metric.listed != "file"]
    rows = [(score.title, *(cell(one, score) for one in columns)) for score in scores]
    rows.append(("D accuracy", *(accuracy(results, one.model) for one in columns)))
    return {
        "network": results.base.get("kid").features,
        "heads": ["score", *(TITLES.get(one.model, one.model) for one in columns)],
        "rows": rows,
        "shaded": 1 + [one.model for one in columns].index(selected),
    }


def _rounds(verdict: Verdict) -> dict[str, Any]:
    heads = ["round", *(found.title for found in verdict.found)]
    rows = [
        (name, *(f"{row['change']} ({row['says']})" for row in map(_finding, found)))
        for name, found in verdict.rounds.items()
    ]
    return {"heads": heads, "rows": rows}


def _changes(verdict: Verdict) -> list[charts.Chart]:
    """Forest plots of the paired changes, as shares of the way from the base model to the bound."""
    compared = {f"{verdict.compared} against the base model": verdict.found}
    rounds = {f"{name} against the model before": found for name, found in verdict.rounds.items()}
    return [
        charts.forest_chart(
            f"{title[0].upper()}{title[1:]}",
            {
                one.title: (one.change / one.way, one.half / one.way, one.valid)
                for one in found
                if one.way > 0
            },
        )
        for title, found in (compared | rounds).items()
        if any(one.way > 0 for one in found)
    ]


def _curves(rounds: Sequence[Round], loss: str) -> list[charts.Chart]:
    """Charts of the discriminator's training, by ``loss``, and of each term of the objective."""
    made = []
    for title, name in (
        (f"Discriminator loss ({LOSSES[loss]})", "loss"),
        ("Discriminator accuracy", "accuracy"),
    ):
        train, val = f"train_{name}", f"val_{name}"
        found = {one.name: read_curves(one.discriminator_history, train, val) for one in rounds}
        made.append(_chart(title, found, train, val))
    found = {one.name: read_curves(one.history, "noise_loss", "val_noise_loss") for one in rounds}
    columns = dict.fromkeys(column for curves in found.values() for column in curves)
    titles = TERMS_OF_SAMPLES if "generator_loss" in columns else TERMS
    for column in columns:
        if column not in NO_TERMS and not column.startswith("val_"):
            made.append(_chart(titles.get(column, column), found, column, f"val_{column}"))
    return made


def _chart(
    title: str, found: Mapping[str, Mapping[str, Curve]], train: str, val: str
) -> charts.Chart:
    """Of both columns; a column that no round has is left out."""
    columns = {"training": train, "validation": val}
    kept = {k: v for k, v in columns.items() if any(v in curves for curves in found.values())}
    return charts.line_chart(
        title,
        {
            name: {label: curves.get(column, []) for label, column in kept.items()}
            for name, curves in found.items()
        },
    )


def _parameters(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By section; values outside any section come first, under ``run``."""
    single = {key: value for key, value in params.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in params.items() if isinstance(value, Mapping)}
    return [
        {"name": name, "rows": [(key, _value(value)) for key, value in rows.items()]}
        for name, rows in ({"run": single} | sections).items()
    ]


def _value(value: Any) -> str:
    """As in YAML."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)

"""The scores of a run as metrics.json, as rounds.csv, and as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advloop.core.rounds import BASE, BASE_FEW
from advloop.evaluation.agreement import rounds, select
from advloop.evaluation.exam_report import GARBAGE
from advloop.evaluation.results import (
    AUTOENCODER,
    REALS,
    VIEWS,
    Results,
    index_of,
)
from advloop.evaluation.scores import DECIMALS, Score, Scores, names, with_interval

TITLES = {
    REALS: "real against real (floor)",
    AUTOENCODER: "real through the autoencoder (bound)",
    BASE: "base model",
    BASE_FEW: "base model, few steps",
}
ACCURACY = "disc_val_accuracy"
COLLAPSED, EPOCH = "diffusion_collapsed", "diffusion_epoch"
VIABILITY = "viability_score"


def summary(results: Results) -> dict[str, Any]:
    """What ``dvc metrics`` shows: ``held_out`` scores of all models, then ``training``.

    exam has 1 for each view that passes, and 0 for the others. held_out.final is the selected
    model, held_out.final.iteration its number (-1: the base model). Each round also has its paired
    changes, change_{score} with _ci95.
    """
    final = select(results)
    held_out: dict[str, dict[str, float]] = {one.model: one.flat() for one in results.all}
    held_out["final"] = held_out[final] | {"iteration": index_of(final)}
    for model, found in rounds(results).items():
        for one in found:
            column = f"change_{results.base.get(one.view).name}"
            held_out[model] |= {
                column: round(one.change, DECIMALS),
                f"{column}_ci95": round(one.half, DECIMALS),
            }
    return {
        "held_out": held_out,
        "exam": {view: int(view in results.exam.valid) for view in VIEWS},
        "training": {model: dict(found) for model, found in results.training.items()},
    }


def rounds_csv(results: Results) -> str:
    """What ``dvc plots`` draws: one line for each model, -1 for the base model.

    The scores that models are judged by, each with its interval and its floor, then the
    viability. Missing values stay empty.
    """
    heads = (f"{view},{view}_ci95,{view}_floor" for view in VIEWS)
    lines = [f"iteration,{','.join(heads)},{VIABILITY}"]
    for model in results.models:
        cells = [str(index_of(model.model))]
        for view in VIEWS:
            flat = model.flat()
            name = model.get(view).name
            floor = results.reals.find(view)
            cells += [str(flat[name]), str(flat[f"{name}_ci95"])]
            cells.append("" if floor is None else str(floor.mean))
        viability = model.find(VIABILITY)
        cells.append("" if viability is None else str(viability.mean))
        lines.append(",".join(cells))
    return "\n".join([*lines, ""])


def cell(scores: Scores, wanted: Score) -> str:
    """A model's score of that name, with its interval if it has one; "" if it was not measured."""
    found = next((score for score in scores.scores if score.name == wanted.name), None)
    return "" if found is None else found.text()


def accuracy(results: Results, model: str) -> str:
    """The validation accuracy of a round's discriminator; "" for any other model."""
    found = results.training.get(model, {}).get(ACCURACY)
    return "" if found is None else f"{found:.2f}"


def exam_rows(results: Results) -> list[tuple[str, ...]]:
    """What the views make of real images, of the bound, of the base model and of garbage.

    A title, then one value a view; those that passed the exam are not marked here.
    """
    exam = results.exam
    rows = {TITLES[REALS]: exam.clean, TITLES[AUTOENCODER]: exam.bound, TITLES[BASE]: exam.samples}
    rows |= {row.case: row.values[0] for row in exam.rows if row.kind == GARBAGE}
    return [
        (title, *(with_interval(values[view], None) for view in VIEWS))
        for title, values in rows.items()
    ]


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with a line for each of ``lines``, which have as many cells as ``heads``."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (heads, *lines))
    return "\n".join([first, "|---" * len(heads) + "|", *others])


def markdown_table(results: Results) -> str:
    """The short table: the main scores on test images, then each round's discriminator accuracy."""
    scores = [score for score in names(results.models) if score.split == "test"]
    columns = [score for score in scores if score.metric.listed == "table"]
    heads = ["model", *(score.title for score in columns), "D accuracy"]
    lines = []
    for one in results.all:
        cells = [cell(one, score) for score in columns]
        lines.append([TITLES.get(one.model, one.model), *cells, accuracy(results, one.model)])
    return markdown(heads, lines)

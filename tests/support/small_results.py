"""Invented scores of a run, and a folder with all that the light stages read of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from advloop.core.rounds import BASE, BASE_FEW, EVALUATION, Round
from advloop.data.pictures import save_png
from advloop.evaluation.exam_report import (
    EXAM,
    FOOLED,
    GARBAGE,
    SEES,
    Report,
    Row,
    write_report,
)
from advloop.evaluation.gallery import (
    NEIGHBOURS,
    SAMPLES,
    STRIP,
    VIABILITY,
    Facts,
    Neighbour,
    Viability,
    save_facts,
)
from advloop.evaluation.results import AUTOENCODER, REALS, VIEWS, Results
from advloop.evaluation.scores import FILE, Metric, Score, Scores, write_scores

TITLES = ("pixels", "layout", "KID", "latent critics", "image critics")
METRICS = {
    view: Metric(view, title, "lower", "table") for view, title in zip(VIEWS, TITLES, strict=True)
}
KID, GAP = METRICS["kid"], METRICS["critic_gap"]
ERROR = Metric("critic_auc_null_se", "critic AUC, null error", listed="file")
JUDGED = Metric("viability_score", "viability", listed="table")
SMALLEST = 0.1
Values = float | Sequence[float]


def by_seed(value: Values) -> tuple[float, ...]:
    """Three sampling seeds 0.1 apart, so that two models' changes are the same for each."""
    return (value - 0.1, value, value + 0.1) if isinstance(value, float | int) else tuple(value)


def scores(
    model: str,
    value: Values,
    *more: Score,
    tune: Values | None = None,
    features: str = "lite0",
    **views: Values,
) -> Scores:
    """Every view has this value, unless ``views`` names another; against tune, it is ``tune``."""
    found = []
    for split, standard in (("test", None), ("tune", tune)):
        for view, metric in METRICS.items():
            own = standard if standard is not None else views.get(view, value)
            network = features if view == "kid" else ""
            found.append(Score(metric, by_seed(own), network, split))
    return Scores(model, (*found, *more))


def exam(valid: Sequence[str] = VIEWS, garbage: bool = False) -> Report:
    """An exam that only these views passed; ``garbage`` is what fools the others, or damage."""
    found = {view: SEES if view in valid else FOOLED for view in VIEWS}
    values = dict.fromkeys(VIEWS, 50.0)
    clean = dict.fromkeys(VIEWS, 1.0)
    seen = dict.fromkeys(VIEWS, SEES)
    rows = [
        Row(GARBAGE, "random pixels", [values], found if garbage else seen),
        Row("samples", "sharpened", [values, values], seen if garbage else found),
    ]
    return Report(48, clean, dict.fromkeys(VIEWS, 0.1), clean, dict.fromkeys(VIEWS, 30.0), rows)


def results(
    *models: Scores,
    accuracy: Mapping[str, float] | None = None,
    valid: Sequence[str] = VIEWS,
    garbage: bool = False,
) -> Results:
    """A floor of 0.01 and a bound of 0.4, beside these models."""
    floor = scores(REALS, (0.01, 0.01, 0.01))
    bound = scores(AUTOENCODER, (0.4, 0.4, 0.4))
    training = {
        one.model: {"disc_val_accuracy": (accuracy or {}).get(one.model, 0.6)} for one in models[1:]
    }
    return Results(floor, bound, models, exam(valid, garbage), training, SMALLEST)


def a_run() -> Results:
    """Two rounds, of which the first is selected."""
    return results(
        scores("base", 30.0, Score(ERROR, (0.125,))),
        scores("iter_0", 20.0, Score(JUDGED, (0.25,))),
        scores("iter_1", 25.0, Score(JUDGED, (0.75,)), critic_gap=19.0),
    )


def a_run_of_few_steps() -> Results:
    """The same rounds, whose base model is worse with as few steps as theirs."""
    return replace(a_run(), base_few=scores(BASE_FEW, 60.0))


def _picture(height: int, width: int) -> Image.Image:
    stream = np.random.default_rng(width)
    return Image.fromarray(stream.integers(256, size=(height, width, 3), dtype=np.uint8))


def write_gallery(folder: Path, judged: bool) -> None:
    for name, width in ((STRIP, 40), (SAMPLES, 16), (NEIGHBOURS, 24), (VIABILITY, 20)):
        save_png(folder / name, _picture(12, width))
    viability = Viability([0.9, 0.8], [0.1, 0.2]) if judged else None
    save_facts(folder, Facts([Neighbour("a.png", 0.5), Neighbour("b/c.png", 0.75)], viability))


def write_run(root: Path, run: Results) -> tuple[Path, Path, list[Round]]:
    """Folders of the real images and the base model, and the rounds, as their stages leave them."""
    reals, base, count = root / "reals", root / "base", len(run.models) - 1
    rounds = [Round(root / "rounds", index) for index in range(count)]
    for one in (run.reals, run.autoencoder):
        write_scores(reals / f"{one.model}.json", one)
    write_report(reals / EXAM, run.exam)
    write_gallery(reals, judged=False)
    folders = [base / EVALUATION, *(one.evaluation for one in rounds)]
    for one, folder in zip(run.models, folders, strict=True):
        write_gallery(folder, judged=one.model != BASE)
        write_scores(folder / FILE, one)
    if run.base_few:
        write_gallery(base / EVALUATION / BASE_FEW, judged=False)
        write_scores(base / EVALUATION / BASE_FEW / FILE, run.base_few)
    for one in rounds:
        found = run.training[one.name]
        for path, start in ((one.discriminator_metrics, "disc_"), (one.metrics, "diffusion_")):
            own = {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(own))
        one.discriminator_history.write_text(
            "epoch,train_loss,train_accuracy,val_loss,val_accuracy\n"
            "1,0.7,0.5,0.69,0.5\n2,0.6,0.7,0.65,0.6\n"
        )
        one.history.write_text(
            "epoch,loss,noise_loss,ddo_loss,val_noise_loss,val_ddo_loss\n"
            "1,0.5,0.4,0.69,0.41,0.7\n2,0.4,0.3,0.68,,\n"
        )
    return reals, base, rounds


def some_params(**changes: Any) -> dict[str, Any]:
    """Values and sections of a params.yaml, as far as a page or a card needs them."""
    return {
        "exp_name": "plans",
        "scale": "tiny",
        "num_iterations": 2,
        "seed": 0,
        "objective": {"name": "ddo", "uses_discriminator": False, "weight": 0.4},
        "base": {"pretrained": None},
        "data": {"source": "plans.zip"},
        "card": {"model_license": None, "data_license": None},
        "train_disc": {"loss": "bce"},
    } | changes

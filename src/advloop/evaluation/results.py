"""All scores of a run, their paired changes, and the choice of the best model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from advloop.core.errors import UserError
from advloop.core.rounds import BASE, EVALUATION, Round
from advloop.evaluation.scores import (
    DECIMALS,
    FILE,
    Score,
    Scores,
    mean_and_interval,
    read_numbers,
    read_scores,
)

REALS, AUTOENCODER = "reals", "autoencoder"
KID, GAP = "kid", "critic_gap"
JUDGED_BY = (KID, GAP)  # lower is better in both


@dataclass(frozen=True)
class Results:
    """reals: the floor, real images against others. autoencoder: the bound, reconstructions.

    models: the base model, then each round's. training: by round, the metrics of train_disc
    (``disc_``) and train_diffusion (``diffusion_``).
    """

    reals: Scores
    autoencoder: Scores
    models: tuple[Scores, ...]
    training: Mapping[str, Mapping[str, float]]

    @property
    def base(self) -> Scores:
        return self.models[0]

    @property
    def all(self) -> tuple[Scores, ...]:
        """Floor and bound, then the models."""
        return (self.reals, self.autoencoder, *self.models)

    def model(self, name: str) -> Scores:
        return next(scores for scores in self.models if scores.model == name)


def read_results(reals: Path, base: Path, rounds: Sequence[Round]) -> Results:
    """Read what the evaluations wrote.

    reals: folder of the floor and the bound; base: of the base model. UserError if a file is
    missing or damaged, or if two models were not measured alike.
    """
    training = {
        one.name: {
            f"{stage}_{name}": value
            for stage, path in (
                ("disc", one.discriminator_metrics),
                ("diffusion", one.metrics),
            )
            for name, value in read_numbers(path).items()
        }
        for one in rounds
    }
    first = _read_model(base / EVALUATION / FILE, BASE)
    return Results(
        _read(reals / f"{REALS}.json", REALS),
        _read(reals / f"{AUTOENCODER}.json", AUTOENCODER),
        (first, *(_read_model(one.evaluation / FILE, one.name, like=first) for one in rounds)),
        training,
    )


def _read(path: Path, name: str) -> Scores:
    scores = read_scores(path)
    if scores.model != name:
        raise UserError(f"{path}: holds the scores of {scores.model}, not {name}; run `dvc repro`")
    return scores


def _read_model(path: Path, name: str, like: Scores | None = None) -> Scores:
    """The scores of a model, whose changes can be paired with those of ``like``."""
    scores = _read(path, name)
    for metric, split in ((KID, "tune"), *((metric, "test") for metric in JUDGED_BY)):
        own = scores.find(metric, split)
        label = metric if split == "test" else f"{split} {metric}"
        if own is None or len(own.values) < 2:
            raise UserError(f"{path}: {name} has no {label} by seed; remake it with `dvc repro`")
        other = own if like is None else like.get(metric, split)
        for what, here, there in (
            ("scores", own.name, other.name),
            ("sampling seeds", len(own.values), len(other.values)),
        ):
            if here != there:
                raise UserError(
                    f"{path}: {label} has {what} {here}, but {there} in the base model; remake "
                    "both with `dvc repro`"
                )
    return scores


def index_of(name: str) -> int:
    """The i of ``iter_i``; -1 for the base model."""
    return -1 if name == BASE else int(name.removeprefix("iter_"))


def select(models: Sequence[Scores]) -> str:
    """The model with the lowest KID on the tune images (the first, if tied).

    All reported scores use other images. The lowest mean wins, however small its lead.
    """
    return min(models, key=lambda scores: scores.get(KID, "tune").mean).model


def change(before: Scores, after: Scores, metric: str) -> tuple[float, float]:
    """Mean change of a metric from one model to another, and half its 95 % interval.

    Paired by sampling seed: both models' samples start from the same noise.
    """
    pairs: tuple[Score, Score] = before.get(metric), after.get(metric)
    values = [[round(value, DECIMALS) for value in score.values] for score in pairs]
    return mean_and_interval([late - early for early, late in zip(*values, strict=True)])


def changes(results: Results) -> dict[str, dict[str, tuple[float, float]]]:
    """By round and score: the change against the model that the round started from."""
    return {
        after.model: {after.get(metric).name: change(before, after, metric) for metric in JUDGED_BY}
        for before, after in pairwise(results.models)
    }

"""All scores of a run, as its stages wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advloop.core.errors import UserError
from advloop.core.rounds import BASE, BASE_FEW, EVALUATION, Round
from advloop.evaluation.exam_report import EXAM, Report, read_report
from advloop.evaluation.scores import (
    FILE,
    Scores,
    read_numbers,
    read_scores,
)

REALS, AUTOENCODER = "reals", "autoencoder"
GAP = "critic_gap"
VIEWS = ("pixels", "layout", "kid", GAP, "image_critic_gap")  # lower is better in all


@dataclass(frozen=True)
class Results:
    """reals: the floor, real images against others. autoencoder: the bound, reconstructions.

    models: the base model, then each round's. base_few: the base model with as few sampling steps
    as the rounds', if it has more. exam: of the views, with this base model. training:
    by round, the metrics of train_disc (``disc_``) and train_diffusion (``diffusion_``). smallest:
    evaluate.smallest_change, a share of the way from the base model to the bound.
    """

    reals: Scores
    autoencoder: Scores
    models: tuple[Scores, ...]
    exam: Report
    training: Mapping[str, Mapping[str, float]]
    smallest: float
    base_few: Scores | None = None

    @property
    def base(self) -> Scores:
        return self.models[0]

    @property
    def all(self) -> tuple[Scores, ...]:
        """Floor and bound, then the models, the base model also with few steps."""
        base, *others = self.models
        few = () if self.base_few is None else (self.base_few,)
        return (self.reals, self.autoencoder, base, *few, *others)

    def model(self, name: str) -> Scores:
        return next(scores for scores in self.models if scores.model == name)


def read_results(reals: Path, base: Path, rounds: Sequence[Round], smallest: float) -> Results:
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
    first, few = _read_model(base / EVALUATION / FILE, BASE), base / EVALUATION / BASE_FEW / FILE
    return Results(
        _read(reals / f"{REALS}.json", REALS),
        _read(reals / f"{AUTOENCODER}.json", AUTOENCODER),
        (first, *(_read_model(one.evaluation / FILE, one.name, like=first) for one in rounds)),
        _read_exam(reals / EXAM),
        training,
        smallest,
        _read(few, BASE_FEW) if few.exists() else None,
    )


def _read(path: Path, name: str) -> Scores:
    scores = read_scores(path)
    if scores.model != name:
        raise UserError(f"{path}: holds the scores of {scores.model}, not {name}; run `dvc repro`")
    return scores


def _read_exam(path: Path) -> Report:
    report = read_report(path)
    if missing := set(VIEWS) ^ set(report.figures):
        raise UserError(
            f"{path}: does not fit the views ({min(missing)}); remake it with `dvc repro`"
        )
    return report


def _read_model(path: Path, name: str, like: Scores | None = None) -> Scores:
    """The scores of a model, whose changes can be paired with those of ``like``."""
    scores = _read(path, name)
    for view, split in ((view, split) for split in ("test", "tune") for view in VIEWS):
        own = scores.find(view, split)
        label = view if split == "test" else f"{split} {view}"
        if own is None or len(own.values) < 2:
            raise UserError(f"{path}: {name} has no {label} by seed; remake it with `dvc repro`")
        other = own if like is None else like.get(view, split)
        for what, here, there in (
            ("scores", own.name, other.name),
            ("sampling seeds", len(own.values), len(other.values)),
            ("groups of reals", len(own.without), len(other.without)),
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

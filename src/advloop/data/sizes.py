"""Whether a source has images enough for the run's parameters, before anything is trained.

The parameters are those of later stages. They change nothing that stage prepare writes, so it does
not declare them; the stages that use them check their own sizes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from advloop.data.manifests import Item
from advloop.data.shares import apportion, count_reals, count_val_fakes
from advloop.params.data import VARIANTS, EncodeDatasetParams
from advloop.params.evaluation import MIN_IMAGES, EvaluateParams
from advloop.params.loader import Params
from advloop.params.training import (
    BaseParams,
    GenerateParams,
    TrainDiffusionParams,
    TrainingParams,
)


def check_sizes(params: Params, items: Sequence[Item], splits: Sequence[str]) -> None:
    """Raise UserError if a later stage would lack images. items, splits: one of each image."""
    train = splits.count("train")
    _check_sets(params, train)
    _check_warmup(params, train)
    classes: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    for item, split in zip(items, splits, strict=True):
        if split in classes:
            classes[split][item.class_name or ""] += 1
    _check_pairs(params, classes["train"], classes["val"])


def _check_sets(params: Params, train: int) -> None:
    seeds = params.section("evaluate", EvaluateParams).num_seeds
    if train // seeds < MIN_IMAGES:
        raise params.fail(
            "evaluate.num_seeds",
            seeds,
            f"needs {seeds * MIN_IMAGES} training images, {MIN_IMAGES} for a set of each seed, and "
            f"there are {train}; add images, or use less (3 at least)",
        )


def _check_warmup(params: Params, train: int) -> None:
    """Of trainings on every training latent, whose steps follow from their number."""
    trainings: dict[str, TrainingParams] = {}
    base = params.section("base", BaseParams)
    if base.pretrained is None:
        trainings["base"] = base
    if params.at("objective.name") != "neon":  # which trains on fakes
        trainings["train_diffusion"] = params.section("train_diffusion", TrainDiffusionParams)
    latents = train * VARIANTS[params.section("encode_dataset", EncodeDatasetParams).augment]
    for name, training in trainings.items():
        if problem := training.warmup_problem(latents):
            key, value = f"{name}.warmup_steps", training.warmup_steps
            raise params.fail(key, value, f"{problem}; it has {latents} latents an epoch")


def _check_pairs(params: Params, train: Counter[str], val: Counter[str]) -> None:
    """A discriminator learns from, and is validated with, reals and fakes of the same class.

    train, val: images of each class.
    """
    num = params.section("generate", GenerateParams).num_samples
    names = sorted(train | val)
    fakes = apportion(num, [train[name] for name in names])
    drawn = count_reals(num, train.total(), val.total())
    reals = [
        apportion(count, [images[name] for name in names])
        for count, images in zip(drawn, (train, val), strict=True)
    ]
    on_val = [count_val_fakes(fake, a, b) for fake, a, b in zip(fakes, *reals, strict=True)]
    pairs = {
        "training": sum(min(a, f - v) for a, f, v in zip(reals[0], fakes, on_val, strict=True)),
        "validation": sum(map(min, reals[1], on_val)),
    }
    for side, count in pairs.items():
        if not count:
            raise params.fail(
                "generate.num_samples",
                num,
                f"leaves no {side} pair of a real and a fake of one class to a discriminator; use "
                f"more, or give the {'val' if side == 'validation' else 'train'} split images of "
                "the larger classes",
            )

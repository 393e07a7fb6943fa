"""Stage evaluate@i (and evaluate_base): held-out metrics of one model.

Its JSON holds the rows of all models so far, its picture their samples of the same noise,
one row each below the real images, and the folder of their name what else the report shows of
them: the report reads the last one alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import load_params, parse_args, run_stage

from advloop.autoencoder import Codec, load_autoencoder
from advloop.classes import load_classes, number_of
from advloop.core.errors import UserError
from advloop.core.io import copy_file, write_json
from advloop.core.progress import bar
from advloop.core.runtime import deterministic, device
from advloop.criterion import Criterion
from advloop.discriminator import Discriminator, load_discriminator
from advloop.evaluation.features import load_features
from advloop.evaluation.metrics import describe
from advloop.evaluation.model import Drawn, evaluate_model, sample_labels
from advloop.evaluation.pictures import judged_samples, nearest_pairs
from advloop.evaluation.reals import Reals, load_reals
from advloop.grids import image_grid, load_png, save_png
from advloop.latent_files import load_latents, read_scale
from advloop.manifest import read_manifest
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_precision, read_seed
from advloop.rows import read_figures, read_rows
from advloop.shown import (
    DIFFUSION,
    DISCRIMINATOR,
    NEIGHBOURS,
    SAMPLES,
    VIABILITY,
    Facts,
    copy_shown,
    require_shown,
    save_facts,
    save_grid,
)
from advloop.unet import check_classes, load_checkpoint

# What a round has and the base model has not.
ROUND = (
    "discriminator",
    "disc_metrics",
    "disc_history",
    "diffusion_metrics",
    "diffusion_history",
)


def training_files(args: argparse.Namespace, train: torch.Tensor) -> list[str]:
    """The images whose variants train.pt holds, in its order."""
    files = [file for file, _, split, *_ in read_manifest(args.manifest) if split == "train"]
    if not files or len(train) % len(files):
        raise UserError(
            f"{args.manifest}: {len(files)} training images for {len(train)} latents; `dvc repro`"
        )
    return files


def save_shown(
    args: argparse.Namespace,
    before: Path,
    drawn: Drawn,
    train: torch.Tensor,
    files: list[str],
    reals: Reals,
    codec: Codec,
    discriminator: Discriminator | None,
    batch_size: int,
    labels: torch.Tensor | None,
) -> None:
    """What the report shows of this model and of those before."""
    folder = args.out.with_suffix("")
    copy_shown(before, folder)
    own = folder / args.name
    images = drawn[1]
    save_grid(own / SAMPLES, images[:16], columns=4)
    pairs, near = nearest_pairs(*drawn, train, files, codec, reals.nearest, batch_size)
    save_grid(own / NEIGHBOURS, pairs, columns=len(near))
    viability = None
    if discriminator:
        judged, viability = judged_samples(*drawn, discriminator, batch_size, labels)
        save_grid(own / VIABILITY, judged, columns=len(viability.most))
        copy_file(args.disc_history, own / DISCRIMINATOR)
        copy_file(args.diffusion_history, own / DIFFUSION)
    save_facts(own, Facts(near, viability))


def main() -> None:
    args = parse_args(
        __doc__,
        optional=ROUND,
        name=str,
        model=Path,
        latents=Path,
        autoencoder=Path,
        reals=Path,
        manifest=Path,
        previous=Path,
        discriminator=Path,
        disc_metrics=Path,
        disc_history=Path,
        diffusion_metrics=Path,
        diffusion_history=Path,
        out=Path,
    )
    params = load_params(f"evaluate {args.name}")
    rows, picture = read_rows(args.previous), args.previous.with_suffix(".png")
    above, before = load_png(picture), require_shown(args.previous.with_suffix(""))
    training = {
        f"{kind}_{name}": value
        for kind, path in (("disc", args.disc_metrics), ("diffusion", args.diffusion_metrics))
        if path
        for name, value in read_figures(path).items()
    }
    deterministic()
    denoiser = load_checkpoint(args.model).placed(device())
    shape = denoiser.latent_shape
    classes = load_classes(args.latents)
    check_classes(args.model, denoiser, number_of(classes))
    discriminator = None
    if args.discriminator:
        discriminator = load_discriminator(args.discriminator, shape[0], number_of(classes))
        discriminator.to(device())
    settings = params.section("evaluate", EvaluateParams)
    codec = Codec(
        load_autoencoder(args.autoencoder).to(device()), *read_scale(args.latents / "stats.json")
    )
    train = load_latents(args.latents / "train.pt", shape)
    files = training_files(args, train)
    reals = load_reals(args.reals, load_latents(args.latents / "test.pt", shape))
    seed = read_seed(params)
    row, drawn = evaluate_model(
        denoiser,
        Criterion(
            objective=noise_only,
            weight=0.0,
            discriminator=None,
            diffusion=params.section("diffusion", DiffusionParams),
            precision=read_precision(params),
            where=device(),
        ),
        codec,
        load_features(settings.features, codec, settings.feature_size, device()),
        train,
        reals,
        settings,
        seed,
        bar("evaluate"),
        classes,
    )
    print(describe(row))
    strip = image_grid(drawn[1][:8], columns=8)
    if above.shape[1] != strip.shape[1]:
        raise UserError(
            f"{picture}: is {above.shape[1]} pixels wide, not {strip.shape[1]}; it is of another "
            "scale, remake it with `dvc repro`"
        )
    labels = None if classes is None else sample_labels(classes, settings, seed, 0)
    batch_size = settings.batch_size
    save_shown(args, before, drawn, train, files, reals, codec, discriminator, batch_size, labels)
    write_json(args.out, {**rows, args.name: row | training})
    gap = np.full((6, strip.shape[1], 3), 255, dtype=np.uint8)
    save_png(args.out.with_suffix(".png"), np.concatenate([above, gap, strip]))


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

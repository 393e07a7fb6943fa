"""Stage evaluate@i (and evaluate_base): held-out metrics of one model.

Its JSON holds the rows of all models so far, its picture their samples of the same noise,
one row each below the real images: the report reads the last one alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import load_params, parse_args, run_stage

from advloop.autoencoder import Codec, load_autoencoder
from advloop.classes import load_classes, number_of
from advloop.criterion import Criterion
from advloop.errors import UserError
from advloop.evaluation import evaluate_model
from advloop.features import load_features
from advloop.grids import image_grid, load_png, save_png
from advloop.io import write_json
from advloop.latent_files import load_latents, read_scale
from advloop.metrics import describe
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_precision, read_seed
from advloop.progress import bar
from advloop.reals import load_reals
from advloop.rows import read_figures, read_rows
from advloop.runtime import deterministic, device
from advloop.unet import check_classes, load_checkpoint


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("disc_metrics", "diffusion_metrics"),
        name=str,
        model=Path,
        latents=Path,
        autoencoder=Path,
        reals=Path,
        previous=Path,
        disc_metrics=Path,
        diffusion_metrics=Path,
        out=Path,
    )
    params = load_params(f"evaluate {args.name}")
    rows, picture = read_rows(args.previous), args.previous.with_suffix(".png")
    above = load_png(picture)
    training = {
        f"{kind}_{name}": value
        for kind, path in (("disc", args.disc_metrics), ("diffusion", args.diffusion_metrics))
        if path
        for name, value in read_figures(path).items()
    }
    deterministic()
    denoiser = load_checkpoint(args.model).to(device())
    classes = load_classes(args.latents)
    check_classes(args.model, denoiser, number_of(classes))
    settings = params.section("evaluate", EvaluateParams)
    codec = Codec(
        load_autoencoder(args.autoencoder).to(device()), *read_scale(args.latents / "stats.json")
    )
    row, images = evaluate_model(
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
        load_latents(args.latents / "train.pt", denoiser.latent_shape),
        load_reals(args.reals, load_latents(args.latents / "test.pt", denoiser.latent_shape)),
        settings,
        read_seed(params),
        bar("evaluate"),
        classes,
    )
    print(describe(row))
    strip = image_grid(images[:8], columns=8)
    if above.shape[1] != strip.shape[1]:
        raise UserError(
            f"{picture}: is {above.shape[1]} pixels wide, not {strip.shape[1]}; it is of another "
            "scale, remake it with `dvc repro`"
        )
    write_json(args.out, {**rows, args.name: row | training})
    gap = np.full((6, strip.shape[1], 3), 255, dtype=np.uint8)
    save_png(args.out.with_suffix(".png"), np.concatenate([above, gap, strip]))


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

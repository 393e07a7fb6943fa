"""Stage evaluate@i (and evaluate_base): held-out metrics of one model.

Its JSON holds the rows of all models so far, its picture their samples of the same noise,
one row each below the real images: the report reads the last one alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import load_params, parse_args, run_stage
from PIL import Image

from advloop.autoencoder import Codec, load_autoencoder
from advloop.criterion import Criterion
from advloop.evaluation import evaluate_model
from advloop.features import load_features
from advloop.grids import image_grid, save_png
from advloop.io import read_json, write_json
from advloop.latent_files import load_latents, read_scale
from advloop.metrics import describe
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_precision, read_seed
from advloop.progress import bar
from advloop.reals import load_reals
from advloop.runtime import deterministic, device
from advloop.unet import load_checkpoint


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
    deterministic()
    denoiser = load_checkpoint(args.model).to(device())
    settings = params.section("evaluate", EvaluateParams)
    codec = Codec(
        load_autoencoder(args.autoencoder).to(device()), read_scale(args.latents / "stats.json")
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
    )
    print(describe(row))
    if args.disc_metrics:
        row |= {f"disc_{name}": value for name, value in read_json(args.disc_metrics).items()}
    if args.diffusion_metrics:
        row |= {
            f"diffusion_{name}": value for name, value in read_json(args.diffusion_metrics).items()
        }
    write_json(args.out, {**read_json(args.previous), args.name: row})
    above = np.asarray(Image.open(args.previous.with_suffix(".png")).convert("RGB"))
    strip = image_grid(images[:8], columns=8)
    gap = np.full((6, strip.shape[1], 3), 255, dtype=np.uint8)
    save_png(args.out.with_suffix(".png"), np.concatenate([above, gap, strip]))


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

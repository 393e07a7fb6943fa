"""Stage predict@i: one-step predictions from noised training latents, as further fakes."""

from __future__ import annotations

from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.processes import run_shared_stage
from _runtime.snapshots import resumable

from advloop.core.device import deterministic, eval_mode, pick_device
from advloop.core.random import batches
from advloop.data.classes import load_classes
from advloop.data.latents import TensorWriter, load_latents
from advloop.diffusion.predictions import predict_latents
from advloop.diffusion.processes import process_of
from advloop.infra.progress import bar
from advloop.infra.snapshots import RowProgress
from advloop.models.conditions import load_conditioned
from advloop.params.diffusion import read_diffusion
from advloop.params.run import read_precision, read_seed
from advloop.params.training import GenerateParams


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("captions",),
        iteration=int,
        model=Path,
        latents=Path,
        captions=Path,
        out=Path,
    )
    params = load_params("predict", args.iteration)
    settings = params.section("generate", GenerateParams)
    process = process_of(read_diffusion(params))
    seed, precision = read_seed(params), read_precision(params)
    deterministic()
    classes = load_classes(args.latents)
    denoiser = load_conditioned(args.model, classes, args.captions).to(pick_device())
    shape = denoiser.latent_shape
    train = load_latents(args.latents / "train.pt", shape)
    labels = None
    if classes is not None:
        fakes = classes.fake_labels(settings.num_samples, seed, args.iteration)
        labels = classes.labels_of("train", train), fakes
    size = (settings.num_samples, *shape)
    progress = bar("predict", len(batches(settings.num_samples, settings.batch_size)))
    with (
        resumable(args, params, "out") as resume,
        eval_mode(denoiser),
        TensorWriter(args.out, size, RowProgress(resume)) as writer,
    ):
        for rows in predict_latents(
            denoiser,
            train,
            settings,
            process,
            seed,
            args.iteration,
            precision,
            pick_device(),
            progress,
            start=writer.filled,
            labels=labels,
        ):
            writer.append(rows)
    print(f"{settings.num_samples} one-step predictions {list(shape)}")


if __name__ == "__main__":
    run_shared_stage(main, memory="generate.batch_size")

"""Stage generate@i: draw fake latents from the current diffusion model.

DDIM samples, and one-step predictions from noised real training latents.
"""

from __future__ import annotations

from pathlib import Path

import torch
from common import load_params, parse_args
from processes import run_shared_stage
from resuming import resumable

from advloop.classes import load_classes, number_of
from advloop.core.progress import bar
from advloop.core.ranks import in_turns
from advloop.core.resume import RowProgress
from advloop.core.runtime import autocast, batches, deterministic, device, eval_mode
from advloop.latent_files import load_latents
from advloop.params.diffusion import DiffusionParams
from advloop.params.run import read_precision, read_seed
from advloop.params.sampling import GenerateParams
from advloop.predictions import predict_latents
from advloop.sampling import noise_for, sample_ddim
from advloop.schedule import alphas_cumprod_of
from advloop.tensor_writer import TensorWriter
from advloop.unet import check_classes, load_checkpoint, told


def main() -> None:
    args = parse_args(__doc__, iteration=int, model=Path, latents=Path, out=Path, predicted=Path)
    params = load_params("generate", args.iteration)
    settings = params.section("generate", GenerateParams)
    diffusion = params.section("diffusion", DiffusionParams)
    seed, precision = read_seed(params), read_precision(params)
    deterministic()
    denoiser = load_checkpoint(args.model).placed(device())
    alphas_cumprod = alphas_cumprod_of(diffusion)
    shape = denoiser.latent_shape
    train = load_latents(args.latents / "train.pt", shape)
    classes = load_classes(args.latents)
    check_classes(args.model, denoiser, number_of(classes))
    labels = both = None
    if classes is not None:
        labels = classes.of_fakes(settings.num_samples, seed, args.iteration)
        both = classes.of_rows("train", train), labels
    size = (settings.num_samples, *shape)

    def draw(part: range) -> torch.Tensor:
        own = None if labels is None else labels[part.start : part.stop].to(device())
        return sample_ddim(
            told(denoiser, own),
            noise_for(part, shape, seed, "generate", args.iteration).to(device()),
            alphas_cumprod,
            diffusion.prediction_type,
            settings.num_inference_steps,
        )

    jobs = batches(settings.num_samples, settings.batch_size)
    progress = bar("generate", len(jobs) * (settings.num_inference_steps + 1))  # network passes
    with resumable(args, params, "out", "predicted") as resume, eval_mode(denoiser):
        done = RowProgress(resume)
        with autocast(precision, device()), TensorWriter(args.out, size, done) as writer:
            left = (
                part
                for part in progress(jobs, settings.num_inference_steps)
                if part.start >= writer.filled
            )
            for rows in in_turns(left, draw):
                writer.append(rows)
        with TensorWriter(args.predicted, size, done) as writer:
            for rows in predict_latents(
                denoiser,
                train,
                settings,
                diffusion,
                seed,
                args.iteration,
                precision,
                device(),
                progress,
                start=writer.filled,
                labels=both,
            ):
                writer.append(rows)
    print(f"{settings.num_samples} latents {list(shape)}, and as many one-step predictions")


if __name__ == "__main__":
    run_shared_stage(main, memory="generate.batch_size")

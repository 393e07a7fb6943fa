"""Stage generate@i: sample fake latents from the current diffusion model."""

from __future__ import annotations

from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.processes import run_shared_stage
from _runtime.snapshots import resumable

import torch

from advloop.core.device import autocast, deterministic, eval_mode, pick_device
from advloop.core.distributed import map_across_processes
from advloop.core.random import batches, noise_for
from advloop.data.classes import count_classes, load_classes
from advloop.data.latents import TensorWriter
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import condition_on_labels, sample
from advloop.infra.progress import bar
from advloop.infra.snapshots import RowProgress
from advloop.models.conditions import load_conditioned
from advloop.models.denoiser import check_guidance
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
    params = load_params("generate", args.iteration)
    settings = params.section("generate", GenerateParams)
    process = process_of(read_diffusion(params))
    seed, precision = read_seed(params), read_precision(params)
    deterministic()
    device = pick_device()
    classes = load_classes(args.latents)
    denoiser = load_conditioned(args.model, classes, args.captions).to(device)
    shape = denoiser.latent_shape
    check_guidance(args.model, denoiser, count_classes(classes), settings.guidance_scale)
    labels = classes.fake_labels(settings.num_samples, seed, args.iteration) if classes else None

    def generate(part: range) -> torch.Tensor:
        own = None if labels is None else labels[part.start : part.stop].to(device)
        return sample(
            process,
            condition_on_labels(denoiser, own, settings.guidance_scale, denoiser.null_label),
            noise_for(part, shape, seed, "generate", args.iteration).to(device),
            settings.num_inference_steps,
        )

    size = (settings.num_samples, *shape)
    jobs = batches(settings.num_samples, settings.batch_size)
    with resumable(args, params, "out") as resume, eval_mode(denoiser):
        done = RowProgress(resume)
        with autocast(precision, device), TensorWriter(args.out, size, done) as writer:
            left = (part for part in bar("generate")(jobs) if part.start >= writer.filled)
            for rows in map_across_processes(generate, left):
                writer.append(rows)
    print(f"{settings.num_samples} latents {list(shape)}")


if __name__ == "__main__":
    run_shared_stage(main, memory="generate.batch_size")

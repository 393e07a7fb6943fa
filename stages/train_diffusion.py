"""Stage train_diffusion@i: fine-tune the current model on noise and discriminator loss."""

from __future__ import annotations

from pathlib import Path

import torch
from common import load_params, parse_args
from processes import run_shared_stage
from resuming import resumable

from advloop.autoencoder import Codec, load_autoencoder
from advloop.classes import load_classes, number_of
from advloop.core.io import write_json
from advloop.core.leader import leads
from advloop.core.progress import bar, say
from advloop.core.runtime import autocast, deterministic, device, eval_mode, generator
from advloop.criterion import Criterion
from advloop.diffusion_training import Labels, Row, Setup, best_row, train_diffusion
from advloop.discriminator import load_discriminator
from advloop.grids import image_grid, save_png
from advloop.history import diffusion_report, write_history
from advloop.latent_files import load_latents, read_scale
from advloop.objectives.registry import OBJECTIVES
from advloop.params.adversarial import TrainDiffusionParams
from advloop.params.diffusion import DiffusionParams
from advloop.params.objectives import read_objective
from advloop.params.run import read_precision, read_seed
from advloop.sampling import noise_for, sample_ddpm
from advloop.tracking import track
from advloop.unet import (
    Denoiser,
    check_classes,
    frozen_copy,
    load_checkpoint,
    save_checkpoint,
    told,
)


def draw_preview(
    criterion: Criterion, settings: TrainDiffusionParams, model: Denoiser, seed: int
) -> torch.Tensor:
    """DDPM samples from noise that is the same at every epoch and iteration.

    Of a model with classes one of each in turn.
    """
    count = settings.num_preview_samples
    labels = None
    if model.num_classes:
        labels = (torch.arange(count) % model.num_classes).to(criterion.where)
    noise = noise_for(range(count), model.latent_shape, seed, "preview").to(criterion.where)
    with eval_mode(model), autocast(criterion.precision, criterion.where):
        return sample_ddpm(
            told(model, labels),
            noise,
            criterion.alphas_cumprod,
            criterion.diffusion.prediction_type,
            settings.preview_steps,
            generator(seed, "preview", "steps"),
        )


def main() -> None:
    args = parse_args(
        __doc__,
        iteration=int,
        model=Path,
        discriminator=Path,
        fakes=Path,
        latents=Path,
        autoencoder=Path,
        out=Path,
        metrics=Path,
    )
    params = load_params("train_diffusion", args.iteration)
    settings = params.section("train_diffusion", TrainDiffusionParams)
    objective = read_objective(params)
    recipe = OBJECTIVES[objective.name]
    deterministic()
    denoiser = load_checkpoint(args.model).placed(device())
    shape = denoiser.latent_shape
    codec = Codec(
        load_autoencoder(args.autoencoder).to(device()), *read_scale(args.latents / "stats.json")
    )
    classes = load_classes(args.latents)
    check_classes(args.model, denoiser, number_of(classes))
    criterion = Criterion(
        objective=recipe.make(objective),
        weight=objective.weight,
        discriminator=load_discriminator(args.discriminator, shape[0], number_of(classes)).to(
            device()
        ),
        diffusion=params.section("diffusion", DiffusionParams),
        precision=read_precision(params),
        where=device(),
        reference=frozen_copy(denoiser) if recipe.against_reference else None,
    )
    fakes = load_latents(args.fakes, shape) if recipe.against_reference else None
    held = 0 if fakes is None else max(1, len(fakes) // 5)
    seed = read_seed(params)
    train = load_latents(args.latents / "train.pt", shape)
    val = load_latents(args.latents / "val.pt", shape)
    labels = None
    if classes is not None:
        drawn = classes.of_fakes(0 if fakes is None else len(fakes), seed, args.iteration)
        labels = Labels(
            classes.of_rows("train", train), classes.of_rows("val", val), drawn[held:], drawn[:held]
        )
    setup = Setup(
        params=settings,
        criterion=criterion,
        train=train,
        val=val,
        seed=seed,
        stage="train_diffusion",
        iteration=args.iteration,
        fakes=None if fakes is None else fakes[held:],
        val_fakes=None if fakes is None else fakes[:held],
        adaptive=recipe.adaptive(objective) if recipe.adaptive else None,
        labels=labels,
    )

    def on_epoch(history: list[Row], model: Denoiser, ema: Denoiser) -> None:
        row = history[-1]
        write_history(args.out / "metrics.csv", history)
        track(history[-1])
        save_checkpoint(args.out / "checkpoint_latest.pt", ema, model)
        if best_row(history) is row:
            save_checkpoint(args.out / "checkpoint_best.pt", ema)
        say(diffusion_report(row, settings.epochs))
        epoch = int(row["epoch"])
        if epoch % settings.sample_interval == 0 or epoch == settings.epochs:
            images = codec.decode(draw_preview(criterion, settings, ema, seed))
            name = f"epoch_{epoch:03d}_samples.png"
            save_png(args.out / "samples" / name, image_grid(images, columns=8))
            say("  Saved samples to samples/")

    with resumable(args, params, "out", "metrics") as resume:
        best = best_row(train_diffusion(setup, denoiser, bar("train_diffusion"), on_epoch, resume))
        summary = {name: round(value, 6) for name, value in best.items()}
        if leads():
            write_json(args.metrics, summary | {"epoch": int(best["epoch"])})


if __name__ == "__main__":
    run_shared_stage(main, memory="train_diffusion.batch_size")

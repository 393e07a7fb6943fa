"""Stage train_diffusion@i: fine-tune the current model on noise loss and the objective's term."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.processes import run_shared_stage
from _runtime.snapshots import resumable

import torch

from advloop.core.device import autocast, deterministic, eval_mode, pick_device
from advloop.core.errors import UserError
from advloop.core.files import write_json
from advloop.core.processes import is_main_process
from advloop.core.random import generator, noise_for
from advloop.core.rounds import CHECKPOINT, HISTORY, LATEST, METRICS, SAMPLES
from advloop.data.classes import Classes, count_classes, load_classes, without_captions
from advloop.data.latents import load_latents
from advloop.data.pictures import image_grid, save_png
from advloop.data.shares import held_out_fakes
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import condition_on_labels, sample_preview
from advloop.infra.progress import bar, say
from advloop.infra.tracking import track
from advloop.models.autoencoder import load_codec
from advloop.models.conditions import load_conditioned
from advloop.models.denoiser import Denoiser, frozen_copy, save_checkpoint
from advloop.models.discriminator import load_discriminator
from advloop.objectives import Recipe, SamplerRecipe, read_objective, recipe_of
from advloop.params.diffusion import read_diffusion
from advloop.params.run import read_precision, read_seed
from advloop.params.training import TrainDiffusionParams
from advloop.training.batches import Side
from advloop.training.diffusion import Setup, train_diffusion
from advloop.training.history import Row, best_row, diffusion_report, write_history
from advloop.training.opponent import Opponent


def draw_preview(
    criterion: Criterion,
    settings: TrainDiffusionParams,
    model: Denoiser,
    seed: int,
    classes: Classes | None,
) -> torch.Tensor:
    """Samples (N, C, H, W) from the same noise at every epoch and iteration.

    A model with classes samples each of them in turn, one with captions those of the validation.
    """
    count = settings.num_preview_samples
    labels = None
    if classes:
        labels = torch.arange(count) % len(classes.names)
        if classes.captions:
            labels = classes.sample_labels("val", count, seed, "preview")
        labels = labels.to(criterion.device)
    noise = noise_for(range(count), model.latent_shape, seed, "preview").to(criterion.device)
    with eval_mode(model), autocast(criterion.precision, criterion.device):
        return sample_preview(
            criterion.process,
            condition_on_labels(model, labels),
            noise,
            settings.preview_steps,
            generator(seed, "preview", "steps"),
        )


def split_fakes(fakes: Side) -> tuple[Side, Side]:
    """The fakes to train on, and those to validate with."""
    count = held_out_fakes(len(fakes))
    labels = fakes.labels
    return (
        Side(fakes.latents[count:], None if labels is None else labels[count:]),
        Side(fakes.latents[:count], None if labels is None else labels[:count]),
    )


def handed_on_row(recipe: Recipe, history: list[Row]) -> Row:
    """The row of the epoch that the round hands on, as far as the history goes."""
    return history[-1] if recipe.hands_on == "last_epoch" else best_row(history)


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("captions", "discriminator"),
        iteration=int,
        model=Path,
        discriminator=Path,
        fakes=Path,
        latents=Path,
        captions=Path,
        autoencoder=Path,
        out=Path,
    )
    params = load_params("train_diffusion", args.iteration)
    settings = params.section("train_diffusion", TrainDiffusionParams)
    objective = read_objective(params)
    recipe = recipe_of(objective.name)
    seed = read_seed(params)
    deterministic()
    device = pick_device()
    classes = load_classes(args.latents)
    denoiser = load_conditioned(args.model, classes, args.captions).to(device)
    shape = denoiser.latent_shape
    codec = load_codec(args.autoencoder, args.latents, device)
    if settings.lora_rank is not None:
        denoiser.requires_grad_(False)  # so that the starting model below is no copy
    start = frozen_copy(denoiser) if recipe.against_reference or recipe.merge else None
    if settings.lora_rank is not None:
        key = (seed, "train_diffusion", args.iteration, "adapter")
        say(denoiser.add_adapter(settings.lora_rank, *key))
    discriminator = None
    if objective.uses_discriminator:
        if args.discriminator is None:
            raise UserError(
                "params.yaml: objective.uses_discriminator=true needs --discriminator, which its "
                "command lacks; run `make params`, then `dvc repro`"
            )
        discriminator = load_discriminator(
            args.discriminator, shape[0], count_classes(without_captions(classes))
        )
        discriminator.to(device)
    criterion = Criterion(
        objective=recipe.make(objective),
        weight=objective.weight,
        discriminator=discriminator,
        process=process_of(read_diffusion(params)),
        precision=read_precision(params),
        device=device,
        reference=start if recipe.against_reference else None,
        null_label=denoiser.null_label,
    )

    def load_side(split: str) -> Side:
        latents = load_latents(args.latents / f"{split}.pt", shape)
        return Side(latents, classes.labels_of(split, latents) if classes else None)

    def load_fakes() -> tuple[Side, Side]:
        latents = load_latents(args.fakes, shape)
        labels = classes.fake_labels(len(latents), seed, args.iteration) if classes else None
        return split_fakes(Side(latents, labels))

    fakes, val_fakes = load_fakes() if recipe.against_reference else (None, None)
    train = load_side("train") if recipe.trains_on == "reals" else load_fakes()[0]
    val, opponent = load_side("val"), None
    if isinstance(recipe, SamplerRecipe):
        assert discriminator is not None
        opponent = Opponent(
            settings=objective,
            judge=recipe.judge,
            discriminator=discriminator,
            criterion=criterion,
            train=train,
            val=val,
            fakes=load_fakes()[0],
            seed=seed,
            iteration=args.iteration,
        )
    setup = Setup(
        params=settings,
        criterion=criterion,
        train=train,
        val=val,
        seed=seed,
        stage="train_diffusion",
        iteration=args.iteration,
        fakes=fakes,
        val_fakes=val_fakes,
        adaptive=recipe.adaptive(objective) if recipe.adaptive else None,
        merge=partial(recipe.merge, objective, start) if recipe.merge and start else None,
        opponent=opponent,
    )

    def on_epoch(history: list[Row], model: Denoiser, ema: Denoiser) -> None:
        row = history[-1]
        write_history(args.out / HISTORY, history)
        track(row)
        save_checkpoint(args.out / LATEST, ema, model)
        if handed_on_row(recipe, history) is row:
            save_checkpoint(args.out / CHECKPOINT, ema)
        say(diffusion_report(row, settings.epochs))
        epoch = int(row["epoch"])
        if epoch % settings.sample_interval == 0 or epoch == settings.epochs or setup.collapsed:
            images = codec.decode(draw_preview(criterion, settings, ema, seed, classes))
            name = f"epoch_{epoch:03d}_samples.png"
            save_png(args.out / SAMPLES / name, image_grid(images, columns=8))
            say("  Saved samples to samples/")

    with resumable(args, params, "out") as resume:
        history = train_diffusion(setup, denoiser, bar("train_diffusion"), on_epoch, resume)
        row = handed_on_row(recipe, history)
        summary = {name: round(value, 6) for name, value in row.items()}
        summary |= {"epoch": int(row["epoch"])}
        if opponent:
            summary |= {"collapsed": int(opponent.collapsed)}
        if opponent and opponent.collapsed and is_main_process():
            print(f"warning: {opponent.collapse_report()}", file=sys.stderr)
        if is_main_process():
            write_json(args.out / METRICS, summary)


if __name__ == "__main__":
    run_shared_stage(main, memory="train_diffusion.batch_size")

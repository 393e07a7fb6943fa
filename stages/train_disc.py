"""Stage train_disc@i: train a discriminator on this iteration's real and fake latents."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from common import load_params, parse_args
from processes import run_shared_stage
from resuming import resumable

from advloop.classes import Classes, load_classes, number_of
from advloop.core.errors import UserError
from advloop.core.io import save_torch, write_json
from advloop.core.leader import leads
from advloop.core.progress import bar, say
from advloop.core.runtime import deterministic, device
from advloop.disc.data import Fakes, make_sides
from advloop.disc.matched_sides import SideLabels, make_matched_sides
from advloop.disc.replay import replay_labels, update_replay
from advloop.disc.training import Row, train_discriminator
from advloop.discriminator import save_discriminator
from advloop.health import health_warning
from advloop.history import discriminator_report, write_history
from advloop.latent_files import load_latents
from advloop.manifest import classes_of, read_manifest
from advloop.params.diffusion import DiffusionParams
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.params.run import read_precision, read_seed
from advloop.schedule import alphas_cumprod_of
from advloop.tracking import track


def load_fakes(args: argparse.Namespace, settings: TrainDiscParams) -> Fakes:
    """The fakes that ``settings`` asks for; what it does not use is not read.

    Iteration 0 has no earlier fakes: its --replay names a stand-in.
    """
    samples = load_latents(args.fake)
    shape = Fakes(samples).shape
    predicted = earlier = None
    if settings.predicted_fraction:
        predicted = load_latents(args.predicted, shape)
        if len(predicted) != len(samples):
            raise UserError(
                f"{args.predicted}: {len(predicted)} latents beside {len(samples)}; `dvc repro`"
            )
    if settings.replay_fraction and args.iteration > 0:
        earlier = load_latents(args.replay, shape)
    return Fakes(samples, predicted, earlier)


def label_sides(
    args: argparse.Namespace, fakes: Fakes, real: torch.Tensor, classes: Classes, seed: int
) -> SideLabels:
    """The classes of all rows; ``real``: those of the reals."""
    count = len(fakes.samples)
    earlier = None
    if fakes.earlier is not None:
        if len(fakes.earlier) != count:
            raise UserError(
                f"{args.replay}: {len(fakes.earlier)} latents beside {count}; `dvc repro`"
            )
        earlier = replay_labels(classes, count, seed, args.iteration - 1)
    return SideLabels(real, classes.of_fakes(count, seed, args.iteration), earlier)


def main() -> None:
    args = parse_args(
        __doc__,
        iteration=int,
        real=Path,
        manifest=Path,
        latents=Path,
        fake=Path,
        predicted=Path,
        replay=Path,
        out=Path,
        metrics=Path,
    )
    params = load_params("train_disc", args.iteration)
    settings = params.section("train_disc", TrainDiscParams)
    seed = read_seed(params)
    diffusion = params.section("diffusion", DiffusionParams)
    fakes = load_fakes(args, settings)
    real = load_latents(args.real, fakes.shape)
    rows = read_manifest(args.manifest)
    splits = [row[2] for row in rows]
    if len(splits) != len(real):
        raise UserError(f"{args.manifest}: {len(splits)} rows for {len(real)} latents; `dvc repro`")
    deterministic()
    classes = load_classes(args.latents)
    if classes is None:
        data, counts = make_sides(real, fakes, splits, settings, seed, args.iteration, device())
    else:
        if len(names := classes_of(rows)) != len(real):
            raise UserError(
                f"{args.manifest}: {len(names)} classes for {len(real)} latents; `dvc repro`"
            )
        labels = label_sides(args, fakes, classes.numbers(names, args.manifest), classes, seed)
        data, counts = make_matched_sides(
            real, fakes, splits, labels, settings, seed, args.iteration, device()
        )
    print(f"{len(data['train'])} training rows, {len(data['val'])} validation rows, half real")
    if counts["predicted"] or counts["replayed"]:
        print(f"training fakes: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")

    def on_epoch(history: list[Row]) -> None:
        write_history(args.out / "discriminator_history.csv", history)
        track(history[-1])
        say(discriminator_report(history[-1], settings.epochs))

    model_params = params.section("discriminator", DiscriminatorParams)
    with resumable(args, params, "out", "metrics") as resume:
        result = train_discriminator(
            settings,
            model_params,
            data["train"],
            data["val"],
            alphas_cumprod_of(diffusion),
            seed,
            args.iteration,
            on_epoch,
            resume,
            bar("train_disc"),
            number_of(classes),
            read_precision(params),
        )
    if not leads():
        return
    if (last := result.history[-1])["epoch"] < settings.epochs:
        print(
            f"Stopped after epoch {last['epoch']:.0f}/{settings.epochs}: validation accuracy "
            f"{last['val_accuracy']:.4f} reached train_disc.stop_accuracy={settings.stop_accuracy}"
        )
    save_discriminator(args.out / "discriminator_best.pt", result.config, result.best)
    save_discriminator(args.out / "discriminator_final.pt", result.config, result.final)
    buffer = fakes.samples[:0]  # without replay nothing reads it: no second copy of the fakes
    if settings.replay_fraction:
        buffer = update_replay(fakes.samples, fakes.earlier, seed, args.iteration)
    save_torch(args.out / "replay_latents.pt", buffer.clone())
    best = result.history[result.best_epoch - 1]
    if warning := health_warning(best["val_accuracy"]):
        print(f"warning: {warning}", file=sys.stderr)
    write_json(
        args.metrics,
        {
            "best_epoch": result.best_epoch,
            "val_loss": round(best["val_loss"], 6),
            "val_accuracy": round(best["val_accuracy"], 6),
            "val_viability": round(best["val_viability"], 6),
            "train_accuracy": round(best["train_accuracy"], 6),
        },
    )


if __name__ == "__main__":
    run_shared_stage(main, memory="train_disc.batch_size")

"""Stage train_disc@i: train a discriminator on the round's real and fake latents."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.processes import run_shared_stage
from _runtime.snapshots import resumable

from advloop.core.device import deterministic, pick_device
from advloop.core.errors import UserError
from advloop.core.files import save_torch, write_json
from advloop.core.processes import is_main_process
from advloop.core.rounds import (
    DISCRIMINATOR,
    DISCRIMINATOR_FINAL,
    DISCRIMINATOR_HISTORY,
    METRICS,
    REPLAY,
)
from advloop.data.classes import Classes, count_classes, load_classes, without_captions
from advloop.data.dataset import classes_of, read_manifest
from advloop.data.latents import load_latents
from advloop.diffusion.processes import process_of
from advloop.infra.progress import bar, say
from advloop.infra.tracking import track
from advloop.models.discriminator import save_discriminator
from advloop.params.diffusion import read_diffusion
from advloop.params.run import read_precision, read_seed
from advloop.params.training import DiscriminatorParams, TrainDiscParams
from advloop.training.discriminator import DiscriminatorSetup, train_discriminator
from advloop.training.discriminator_data import (
    Fakes,
    Reals,
    make_sides,
    replay_labels,
    update_replay,
)
from advloop.training.history import (
    Row,
    best_row,
    discriminator_report,
    health_warning,
    write_history,
)


def load_fakes(
    args: argparse.Namespace, settings: TrainDiscParams, classes: Classes | None, seed: int
) -> Fakes:
    """The fakes that ``settings`` asks for; iteration 0 has no earlier ones."""
    wanted = {"predicted": settings.predicted_fraction}
    wanted |= {"replay": settings.replay_fraction} if args.iteration else {}
    for name, fraction in wanted.items():
        if fraction and getattr(args, name) is None:
            raise UserError(
                f"params.yaml: train_disc.{name}_fraction={fraction} needs --{name}, which its "
                "command lacks; run `make params`, then `dvc repro`"
            )
    samples = load_latents(args.fake)
    shape, count = Fakes(samples).shape, len(samples)
    predicted = earlier = labels = earlier_labels = None
    if settings.predicted_fraction:
        predicted = load_latents(args.predicted, shape)
        if len(predicted) != count:
            raise UserError(
                f"{args.predicted}: {len(predicted)} latents for {count} fakes; remake it with "
                "`dvc repro`"
            )
    if settings.replay_fraction and args.iteration:
        earlier = load_latents(args.replay, shape)
    if classes:
        labels = classes.fake_labels(count, seed, args.iteration)
    if classes and earlier is not None:
        if len(earlier) != count:
            raise UserError(
                f"{args.replay}: {len(earlier)} latents for {count} fakes; remake it with "
                "`dvc repro`"
            )
        earlier_labels = replay_labels(classes, count, seed, args.iteration - 1)
    return Fakes(samples, predicted, earlier, labels, earlier_labels)


def load_reals(
    args: argparse.Namespace, shape: tuple[int, int, int], classes: Classes | None
) -> Reals:
    """The reals, with their splits and classes from the manifest beside them."""
    latents = load_latents(args.real, shape)
    rows = read_manifest(args.manifest)
    if len(rows) != len(latents):
        raise UserError(
            f"{args.manifest}: {len(rows)} rows for {len(latents)} latents; remake it with "
            "`dvc repro`"
        )
    labels = None
    if classes:
        if len(names := classes_of(rows)) != len(latents):
            raise UserError(
                f"{args.manifest}: {len(names)} classes for {len(latents)} latents; remake it "
                "with `dvc repro`"
            )
        labels = classes.to_labels(names, args.manifest)
    return Reals(latents, [row[2] for row in rows], labels)


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("predicted", "replay"),
        iteration=int,
        real=Path,
        manifest=Path,
        latents=Path,
        fake=Path,
        predicted=Path,
        replay=Path,
        out=Path,
    )
    params = load_params("train_disc", args.iteration)
    settings = params.section("train_disc", TrainDiscParams)
    seed = read_seed(params)
    deterministic()
    classes = without_captions(load_classes(args.latents))
    fakes = load_fakes(args, settings, classes, seed)
    reals = load_reals(args, fakes.shape, classes)
    data, counts = make_sides(reals, fakes, settings, seed, args.iteration, pick_device())
    print(f"{len(data['train'])} training rows, {len(data['val'])} validation rows, half real")
    if counts["predicted"] or counts["replayed"]:
        print(f"training fakes: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")

    def on_epoch(history: list[Row]) -> None:
        write_history(args.out / DISCRIMINATOR_HISTORY, history)
        track(history[-1])
        say(discriminator_report(history[-1], settings.epochs))

    setup = DiscriminatorSetup(
        params=settings,
        model=params.section("discriminator", DiscriminatorParams),
        train=data["train"],
        val=data["val"],
        process=process_of(read_diffusion(params)),
        seed=seed,
        iteration=args.iteration,
        num_classes=count_classes(classes),
        precision=read_precision(params),
    )
    with resumable(args, params, "out") as resume:
        result = train_discriminator(setup, bar("train_disc"), on_epoch, resume)
    if not is_main_process():
        return
    if (last := result.history[-1])["epoch"] < settings.epochs:
        print(
            f"Stopped after epoch {last['epoch']:.0f}/{settings.epochs}: validation accuracy "
            f"{last['val_accuracy']:.4f} reached train_disc.stop_accuracy={settings.stop_accuracy}"
        )
    save_discriminator(args.out / DISCRIMINATOR, result.config, result.best)
    save_discriminator(args.out / DISCRIMINATOR_FINAL, result.config, result.final)
    buffer = fakes.samples[:0]  # nothing reads it without replay: save no second copy of the fakes
    if settings.replay_fraction:
        buffer = update_replay(fakes.samples, fakes.earlier, seed, args.iteration)
    save_torch(args.out / REPLAY, buffer.clone())
    best = best_row(result.history)
    if warning := health_warning(best["val_accuracy"]):
        print(f"warning: {warning}", file=sys.stderr)
    write_json(
        args.out / METRICS,
        {
            "best_epoch": int(best["epoch"]),
            "val_loss": round(best["val_loss"], 6),
            "val_accuracy": round(best["val_accuracy"], 6),
            "val_viability": round(best["val_viability"], 6),
            "train_accuracy": round(best["train_accuracy"], 6),
        },
    )


if __name__ == "__main__":
    run_shared_stage(main, memory="train_disc.batch_size")

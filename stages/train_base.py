"""Stage train_base: train the stage-1 diffusion model, or check and import the user's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.processes import run_shared_stage
from _runtime.snapshots import resumable

import torch

from advloop.core.device import deterministic, pick_device
from advloop.core.files import write_json
from advloop.core.processes import is_main_process
from advloop.data.classes import count_classes, load_classes, without_captions
from advloop.data.latents import load_latents
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.processes import process_of
from advloop.infra.progress import bar, say
from advloop.infra.tracking import track
from advloop.models.base_model import import_base
from advloop.models.conditions import condition
from advloop.models.denoiser import Denoiser, build_denoiser, denoiser_config, save_checkpoint
from advloop.params.diffusion import DiTParams, UNetParams, read_diffusion
from advloop.params.run import read_denoiser, read_precision, read_seed
from advloop.params.training import BaseParams
from advloop.training.batches import Side
from advloop.training.diffusion import Setup, train_diffusion, validate
from advloop.training.history import Row, best_row, diffusion_report, write_history


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("captions",),
        latents=Path,
        captions=Path,
        out=Path,
        metrics=Path,
        history=Path,
    )
    params = load_params("train_base")
    settings = params.section("base", BaseParams)
    deterministic()
    train = load_latents(args.latents / "train.pt")
    channels, size = int(train.shape[1]), int(train.shape[2])
    shape = (channels, size, size)
    val = load_latents(args.latents / "val.pt", shape)
    classes = load_classes(args.latents)

    def side(split: str, latents: torch.Tensor) -> Side:
        return Side(latents, classes.labels_of(split, latents) if classes else None)

    device = pick_device()
    diffusion = read_diffusion(params)
    criterion = noise_criterion(process_of(diffusion), read_precision(params), device)
    network: UNetParams | DiTParams = (
        params.section("dit", DiTParams)
        if read_denoiser(params) == "dit"
        else params.section("unet", UNetParams)
    )
    seed = read_seed(params)
    if settings.pretrained:
        own = without_captions(classes)
        names = own.names if own else ()
        denoiser = import_base(Path(settings.pretrained), shape, network, diffusion, names)
        named = Path(f"base.pretrained={settings.pretrained}")
        condition(named, denoiser, classes, args.captions)
    else:
        config = denoiser_config(network, channels, size, count_classes(classes))
        denoiser = build_denoiser(config, seed)
    denoiser.to(device)
    setup = Setup(
        params=settings,
        criterion=replace(criterion, null_label=denoiser.null_label),
        train=side("train", train),
        val=side("val", val),
        seed=seed,
        stage="train_base",
        iteration=-1,
    )

    def on_epoch(history: list[Row], _: Denoiser, ema: Denoiser) -> None:
        if best_row(history) is history[-1]:
            save_checkpoint(args.out, ema)
        write_history(args.history, history)
        track(history[-1])
        say(diffusion_report(history[-1], settings.epochs))

    if settings.pretrained:
        history: list[Row] = [{"epoch": 0} | validate(setup, denoiser, epoch=0)]
        if is_main_process():
            save_checkpoint(args.out, denoiser)
            write_history(args.history, history)
    else:
        with resumable(args, params, "out", "metrics", "history") as resume:
            history = train_diffusion(setup, denoiser, bar("train_base"), on_epoch, resume)
    if is_main_process():
        best = best_row(history)["val_noise_loss"]
        write_json(args.metrics, {"val_noise_loss": round(best, 6)})


if __name__ == "__main__":
    run_shared_stage(main, memory="base.batch_size")

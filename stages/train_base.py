"""Stage train_base: train the stage-1 diffusion model, or check and import the user's own."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args
from processes import run_shared_stage
from resuming import resumable

from advloop.classes import load_classes, number_of
from advloop.core.io import write_json
from advloop.core.leader import leads
from advloop.core.progress import bar, say
from advloop.core.runtime import deterministic, device
from advloop.criterion import Criterion, held_out
from advloop.diffusion_training import Labels, Row, Setup, best_row, train_diffusion
from advloop.history import diffusion_report, write_history
from advloop.latent_files import load_latents
from advloop.objectives.none import noise_only
from advloop.params.diffusion import BaseParams, DiffusionParams, UNetParams
from advloop.params.run import read_precision, read_seed
from advloop.tracking import track
from advloop.unet import (
    Denoiser,
    build_unet,
    import_base,
    save_checkpoint,
    unet_config,
)


def main() -> None:
    args = parse_args(__doc__, latents=Path, out=Path, metrics=Path, history=Path)
    params = load_params("train_base")
    settings = params.section("base", BaseParams)
    deterministic()
    train = load_latents(args.latents / "train.pt")
    channels, size = int(train.shape[1]), int(train.shape[2])
    shape = (channels, size, size)
    val = load_latents(args.latents / "val.pt", shape)
    classes = load_classes(args.latents)
    labels = None
    if classes is not None:
        labels = Labels(classes.of_rows("train", train), classes.of_rows("val", val))
    criterion = Criterion(
        objective=noise_only,
        weight=0.0,
        discriminator=None,
        diffusion=params.section("diffusion", DiffusionParams),
        precision=read_precision(params),
        where=device(),
    )
    seed = read_seed(params)

    def on_epoch(history: list[Row], _: Denoiser, ema: Denoiser) -> None:
        if best_row(history) is history[-1]:
            save_checkpoint(args.out, ema)
        write_history(args.history, history)
        track(history[-1])
        say(diffusion_report(history[-1], settings.epochs))

    if settings.pretrained:
        unet = params.section("unet", UNetParams)
        path, process = Path(settings.pretrained), criterion.diffusion
        names = classes.names if classes else ()
        denoiser = import_base(path, shape, unet, process, names).placed(device())
        measured = held_out(
            criterion,
            denoiser,
            val,
            seed,
            settings.batch_size,
            labels=labels.val if labels else None,
        )
        history: list[Row] = [{"epoch": 0} | {f"val_{k}": v for k, v in measured.items()}]
        if leads():
            save_checkpoint(args.out, denoiser)
            write_history(args.history, history)
    else:
        unet = params.section("unet", UNetParams)
        config = unet_config(unet, channels, size, number_of(classes))
        denoiser = build_unet(config, seed).placed(device())
        setup = Setup(
            settings, criterion, train, val, seed, "train_base", iteration=-1, labels=labels
        )
        with resumable(args, params, "out", "metrics", "history") as resume:
            history = train_diffusion(setup, denoiser, bar("train_base"), on_epoch, resume)
    if leads():
        best = best_row(history)["val_noise_loss"]
        write_json(args.metrics, {"val_noise_loss": round(best, 6)})


if __name__ == "__main__":
    run_shared_stage(main, memory="base.batch_size")

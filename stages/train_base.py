"""Stage train_base: train the stage-1 diffusion model, or check and import the user's own."""

from __future__ import annotations

import math
from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.criterion import Criterion, held_out
from advloop.diffusion_training import Row, Setup, train_diffusion
from advloop.history import diffusion_report, write_history
from advloop.io import write_json
from advloop.latent_files import load_latents
from advloop.objectives.none import noise_only
from advloop.params.diffusion import BaseParams, DiffusionParams, UNetParams
from advloop.params.run import read_precision, read_seed
from advloop.progress import bar
from advloop.runtime import deterministic, device
from advloop.unet import (
    Denoiser,
    build_unet,
    import_unet,
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
    criterion = Criterion(
        objective=noise_only,
        weight=0.0,
        discriminator=None,
        diffusion=params.section("diffusion", DiffusionParams),
        precision=read_precision(params),
        where=device(),
    )
    seed = read_seed(params)

    rows: list[Row] = []

    def on_epoch(row: Row, _: Denoiser, ema: Denoiser) -> None:
        best = min((r["val_loss"] for r in rows if "val_loss" in r), default=math.inf)
        if row.get("val_loss", math.inf) < best:
            save_checkpoint(args.out, ema)
        rows.append(row)
        write_history(args.history, rows)
        print(diffusion_report(row, settings.epochs), flush=True)

    if settings.pretrained:
        denoiser = import_unet(Path(settings.pretrained), shape).to(device())
        save_checkpoint(args.out, denoiser)
        measured = held_out(criterion, denoiser, val, seed, settings.batch_size)
        rows.append({"epoch": 0} | {f"val_{name}": value for name, value in measured.items()})
        write_history(args.history, rows)
    else:
        config = unet_config(params.section("unet", UNetParams), channels, size)
        denoiser = build_unet(config, seed).to(device())
        setup = Setup(settings, criterion, train, val, seed, "train_base", iteration=-1)
        train_diffusion(setup, denoiser, bar("train_base"), on_epoch)
    best = min(row["val_noise_loss"] for row in rows if "val_noise_loss" in row)
    write_json(args.metrics, {"val_noise_loss": round(best, 6)})


if __name__ == "__main__":
    run_stage(main)

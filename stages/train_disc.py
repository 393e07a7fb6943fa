"""Stage train_disc@i: train a discriminator on this iteration's real and fake latents."""

from __future__ import annotations

import sys
from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.disc_training import (
    DiscData,
    make_side,
    split_rows,
    train_discriminator,
)
from advloop.discriminator import save_discriminator
from advloop.errors import UserError
from advloop.health import health_warning
from advloop.history import discriminator_report, write_history
from advloop.io import write_json
from advloop.latent_files import load_latents
from advloop.manifest import read_manifest
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.params.run import read_seed
from advloop.runtime import deterministic, device


def main() -> None:
    args = parse_args(
        __doc__, iteration=int, real=Path, manifest=Path, fake=Path, out=Path, metrics=Path
    )
    params = load_params("train_disc", args.iteration)
    settings = params.section("train_disc", TrainDiscParams)
    seed = read_seed(params)
    fake = load_latents(args.fake)
    real = load_latents(args.real, tuple(fake.shape[1:]))  # type: ignore[arg-type]  # 3 entries
    splits = [row[2] for row in read_manifest(args.manifest)]
    if len(splits) != len(real):
        raise UserError(f"{args.manifest}: {len(splits)} rows for {len(real)} latents; `dvc repro`")
    deterministic()
    sides = split_rows(splits, len(fake), seed, args.iteration)
    data = {name: make_side(real, fake, rows) for name, rows in sides.items()}
    data = {n: DiscData(d.latents.to(device()), d.real.to(device())) for n, d in data.items()}
    print(f"{len(data['train'])} training rows, {len(data['val'])} validation rows, half real")

    rows: list[dict[str, float]] = []

    def on_epoch(row: dict[str, float]) -> None:
        rows.append(row)
        write_history(args.out / "discriminator_history.csv", rows)
        print(discriminator_report(row, settings.epochs), flush=True)

    result = train_discriminator(
        settings,
        params.section("discriminator", DiscriminatorParams),
        data["train"],
        data["val"],
        seed,
        args.iteration,
        on_epoch,
    )
    save_discriminator(args.out / "discriminator_best.pt", result.config, result.best)
    save_discriminator(args.out / "discriminator_final.pt", result.config, result.final)
    best = result.history[result.best_epoch - 1]
    if warning := health_warning(best["val_accuracy"]):
        print(f"warning: {warning}", file=sys.stderr)
    write_json(
        args.metrics,
        {
            "best_epoch": result.best_epoch,
            "val_loss": round(best["val_loss"], 6),
            "val_accuracy": round(best["val_accuracy"], 6),
            "train_accuracy": round(best["train_accuracy"], 6),
        },
    )


if __name__ == "__main__":
    run_stage(main)

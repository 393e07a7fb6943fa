"""Stage export: the selected model as the folder of a diffusers pipeline, with a model card."""

from __future__ import annotations

import hashlib
from pathlib import Path

from common import load_params, parse_args, run_stage
from omegaconf import OmegaConf

from advloop.autoencoder import load_autoencoder
from advloop.core.errors import UserError
from advloop.export import Export, export_pipeline, read_unet
from advloop.latent_files import read_scale
from advloop.manifest import classes_of, read_manifest
from advloop.model_card import model_card
from advloop.params.diffusion import DiffusionParams
from advloop.params.run import read_num_iterations, read_precision, read_seed
from advloop.rows import read_rows


def sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror
        raise UserError(f"{path}: cannot be read ({reason}); make it with `dvc repro`") from None


def main() -> None:
    args = parse_args(
        __doc__, model=Path, autoencoder=Path, stats=Path, data=Path, evaluation=Path, out=Path
    )
    params = load_params("export")
    # one by one: a test compares the sections that a stage names with those that it declares
    sections = {
        "data": params.section_node("data"),
        "autoencoder": params.section_node("autoencoder"),
        "encode_dataset": params.section_node("encode_dataset"),
        "diffusion": params.section_node("diffusion"),
        "unet": params.section_node("unet"),
        "base": params.section_node("base"),
        "generate": params.section_node("generate"),
        "encode": params.section_node("encode"),
        "discriminator": params.section_node("discriminator"),
        "train_disc": params.section_node("train_disc"),
        "train_diffusion": params.section_node("train_diffusion"),
        "evaluate": params.section_node("evaluate"),
        "objective": params.section_node("objective"),
    }
    shown = {name: OmegaConf.to_container(node) for name, node in sections.items()}
    shown |= {
        "scale": params.value("scale", str),
        "seed": read_seed(params),
        "precision": read_precision(params),
        "num_iterations": read_num_iterations(params),
    }
    manifest = read_manifest(args.data / "manifest.csv")
    classes = tuple(sorted(set(classes_of(manifest))))
    config, weights = read_unet(args.model)
    if (config.get("num_class_embeds") or 0) != len(classes):
        raise UserError(
            f"{args.model}: knows {config.get('num_class_embeds') or 0} classes, but the images "
            f"have {len(classes)}; remake it with `dvc repro`"
        )
    model = Export(
        config,
        weights,
        load_autoencoder(args.autoencoder),
        *read_scale(args.stats),
        params.section("diffusion", DiffusionParams),
        classes,
    )
    rows = read_rows(args.evaluation, "reals", "autoencoder", "base")
    splits = [row[2] for row in manifest]
    files = {
        "images.npy": args.data / "images.npy",
        "manifest.csv": args.data / "manifest.csv",
        "checkpoint": args.model,
    }
    hashes = {name: sha256(path) for name, path in files.items()}
    export_pipeline(model, args.out, model_card(model, shown, rows, splits, hashes))
    print(f"{args.out}: a pipeline of diffusers; README.md there says how to draw from it")


if __name__ == "__main__":
    run_stage(main)

"""Stage select: the model that the views agree on, as a diffusers folder with a model card."""

from __future__ import annotations

import hashlib
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.errors import UserError
from advloop.core.rounds import BASE, CHECKPOINT, EVALUATION, prune_rounds
from advloop.data.dataset import classes_of, load_dataset, read_manifest
from advloop.data.latents import read_scale
from advloop.data.pictures import load_png
from advloop.evaluation.agreement import select
from advloop.evaluation.gallery import SAMPLES
from advloop.evaluation.results import read_results
from advloop.export.card import model_card
from advloop.export.pipeline import Export, export_pipeline, read_unet
from advloop.models.architectures import architecture_of
from advloop.models.autoencoder import load_autoencoder
from advloop.params.data import DataParams
from advloop.params.diffusion import read_diffusion
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_num_iterations
from advloop.params.training import GenerateParams


def sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror
        raise UserError(f"{path}: cannot be read ({reason}); make it with `dvc repro`") from None


def text_parts(data: DataParams, prepared: Path) -> tuple[Path | None, str]:
    """The folder of the text encoder, and a training image's shortest caption; or (None, "")."""
    if data.text_encoder is None:
        return None, ""
    dataset = load_dataset(prepared)
    captions = [dataset.captions[row] for row in dataset.rows("train")] if dataset.captions else []
    return Path(data.text_encoder), min(captions, key=lambda text: (len(text), text), default="")


def main() -> None:
    args = parse_args(
        __doc__,
        base=Path,
        rounds=Path,
        reals=Path,
        autoencoder=Path,
        stats=Path,
        data=Path,
        out=Path,
    )
    params = load_params("select")
    rounds = prune_rounds(args.rounds, read_num_iterations(params))
    smallest = params.section("evaluate", EvaluateParams).smallest_change
    results = read_results(args.reals, args.base, rounds, smallest)
    chosen = select(results)
    checkpoints = {BASE: args.base / CHECKPOINT}
    checkpoints |= {one.name: one.checkpoint("best") for one in rounds}
    checkpoint = checkpoints[chosen]
    folders = {BASE: args.base / EVALUATION} | {one.name: one.evaluation for one in rounds}
    load_png(samples := folders[chosen] / SAMPLES)
    manifest = read_manifest(args.data / "manifest.csv")
    classes = tuple(sorted(set(classes_of(manifest))))
    config, weights = read_unet(checkpoint)
    architecture = architecture_of(config)
    known = architecture.num_classes(config)
    if known != len(classes) and (classes or architecture.null_label(config) is None):
        raise UserError(
            f"{checkpoint}: knows {known} classes, but the images have {len(classes)}; remake it "
            "with `dvc repro`"
        )
    sampling = params.section("generate", GenerateParams)
    model = Export(
        config,
        weights,
        load_autoencoder(args.autoencoder),
        *read_scale(args.stats),
        read_diffusion(params),
        sampling.num_inference_steps,
        sampling.guidance_scale,
        samples,
        classes,
        *text_parts(params.section("data", DataParams), args.data),
    )
    files = {
        "images.npy": args.data / "images.npy",
        "manifest.csv": args.data / "manifest.csv",
        "checkpoint": checkpoint,
    }
    hashes = {name: sha256(path) for name, path in files.items()}
    settings = params.everything("exp_name")  # a model keeps its bytes under another name
    splits = [row[2] for row in manifest]
    export_pipeline(model, args.out, model_card(model, settings, results, splits, hashes))
    print(f"selected: {chosen}")
    print(f"{args.out}: a pipeline for diffusers; its README.md says how to sample from it")


if __name__ == "__main__":
    run_stage(main)

"""Stage evaluate@i: held-out scores and pictures of one round's model."""

from __future__ import annotations

from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.device import deterministic, pick_device
from advloop.core.rounds import Round
from advloop.data.classes import count_classes, load_classes, without_captions
from advloop.data.dataset import training_files
from advloop.data.latents import load_latents
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.processes import process_of
from advloop.evaluation.features import load_features
from advloop.evaluation.model import Judge, evaluate_model
from advloop.evaluation.pictures import save_gallery
from advloop.evaluation.reals import FILE, load_reals
from advloop.evaluation.scores import FILE as SCORES
from advloop.evaluation.scores import write_scores
from advloop.infra.progress import bar
from advloop.models.autoencoder import load_codec
from advloop.models.conditions import load_conditioned
from advloop.models.denoiser import check_guidance
from advloop.models.discriminator import load_discriminator
from advloop.params.diffusion import read_diffusion
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_precision, read_seed


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("captions",),
        iteration=int,
        model=Path,
        discriminator=Path,
        latents=Path,
        captions=Path,
        autoencoder=Path,
        reals=Path,
        manifest=Path,
        out=Path,
    )
    params = load_params("evaluate", args.iteration)
    settings = params.section("evaluate", EvaluateParams)
    deterministic()
    device = pick_device()
    classes = load_classes(args.latents)
    denoiser = load_conditioned(args.model, classes, args.captions).to(device)
    shape = denoiser.latent_shape
    check_guidance(args.model, denoiser, count_classes(classes), settings.guidance_scale)
    known = count_classes(without_captions(classes))
    discriminator = load_discriminator(args.discriminator, shape[0], known)
    codec = load_codec(args.autoencoder, args.latents, device)
    train = load_latents(args.latents / "train.pt", shape)
    files = training_files(args.manifest, len(train))
    reals, seed = load_reals(args.reals / FILE), read_seed(params)
    judge = Judge(
        noise_criterion(process_of(read_diffusion(params)), read_precision(params), device),
        codec,
        load_features(
            settings.features, codec, settings.feature_size, device, settings.feature_weights
        ),
        train,
        reals,
        reals.views(settings, seed, device),
        settings,
        seed,
        classes,
    )
    name = Round(args.out.parent.parent, args.iteration).name
    found = evaluate_model(name, denoiser, judge, bar("evaluate"), discriminator.to(device))
    print(found.scores.describe())
    save_gallery(args.out, found.samples, train, files, codec, reals.nearest)
    write_scores(args.out / SCORES, found.scores)


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

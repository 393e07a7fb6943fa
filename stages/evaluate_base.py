"""Stage evaluate_base: score what the rounds are compared with, and examine the views.

The floor (real images against others), the bound (reconstructions by the autoencoder) and the base
model; then the exam: which views garbage and damage do not fool.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.device import deterministic, pick_device
from advloop.core.rounds import BASE, BASE_FEW
from advloop.data.classes import count_classes, load_classes
from advloop.data.dataset import load_dataset
from advloop.data.latents import load_latents
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.processes import process_of
from advloop.evaluation.exam import SHORT, decoded_noise, examine_views
from advloop.evaluation.exam_report import EXAM, write_report
from advloop.evaluation.features import load_features
from advloop.evaluation.floor import Sources, example_reals, make_reals, measure_reals
from advloop.evaluation.model import Judge, evaluate_model
from advloop.evaluation.pictures import save_gallery, save_samples
from advloop.evaluation.reals import FILE, save_reals
from advloop.evaluation.scores import FILE as SCORES
from advloop.evaluation.scores import write_scores
from advloop.infra.progress import bar
from advloop.models.autoencoder import load_codec
from advloop.models.conditions import load_conditioned
from advloop.models.denoiser import check_guidance
from advloop.params.data import EncodeDatasetParams
from advloop.params.diffusion import read_diffusion
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_precision, read_seed


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("captions",),
        data=Path,
        model=Path,
        latents=Path,
        captions=Path,
        autoencoder=Path,
        reals=Path,
        out=Path,
    )
    params = load_params("evaluate_base")
    settings = params.section("evaluate", EvaluateParams)
    augmentation = params.section("encode_dataset", EncodeDatasetParams).augment
    seed = read_seed(params)
    dataset = load_dataset(args.data)
    deterministic()
    device = pick_device()
    classes = load_classes(args.latents)
    denoiser = load_conditioned(args.model, classes, args.captions).to(device)
    check_guidance(args.model, denoiser, count_classes(classes), settings.guidance_scale)
    codec = load_codec(args.autoencoder, args.latents, device)
    features = load_features(
        settings.features, codec, settings.feature_size, device, settings.feature_weights
    )
    train = load_latents(args.latents / "train.pt", denoiser.latent_shape)
    test = load_latents(args.latents / "test.pt", denoiser.latent_shape)
    sources = Sources(
        args.data,
        args.latents,
        dataset,
        augmentation,
        features,
        codec,
        train,
        test,
        classes,
        settings,
        seed,
        device,
    )
    reals = make_reals(sources)
    views = reals.views(settings, seed, device)
    floor = measure_reals(sources, reals, views["test"], bar("reals"))
    for scores in floor.scores:
        print(f"{scores.model}: {scores.describe()}")
        write_scores(args.reals / f"{scores.model}.json", scores)
    save_samples(args.reals, example_reals(dataset, seed))
    save_reals(args.reals / FILE, reals)
    judge = Judge(
        noise_criterion(process_of(read_diffusion(params)), read_precision(params), device),
        codec,
        features,
        train,
        reals,
        views,
        settings.of_base(),
        seed,
        classes,
    )
    found = evaluate_model(BASE, denoiser, judge, bar("evaluate"))
    print(found.scores.describe())
    # Which views count decides what is handed on, so that nothing reported may have a say in it.
    report = examine_views(
        floor,
        found.images["tune"],
        decoded_noise(codec, denoiser.latent_shape, seed),
        views["tune"],
        sources.drawn,
        SHORT,
        bar("exam"),
    )
    print(f"views that pass the exam: {', '.join(report.valid) or 'none'}")
    write_report(args.reals / EXAM, report)
    files = [dataset.files[row] for row in dataset.rows("train")]
    save_gallery(args.out, found.samples, train, files, codec, reals.nearest)
    write_scores(args.out / SCORES, found.scores)
    if settings.num_inference_steps != settings.base_num_inference_steps:
        judge = replace(judge, params=settings)
        few = evaluate_model(BASE_FEW, denoiser, judge, bar("few steps"), splits=("test",))
        print(few.scores.describe())
        save_samples(args.out / BASE_FEW, few.samples.drawn.images)
        write_scores(args.out / BASE_FEW / SCORES, few.scores)


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

"""Examine the figures that models are judged by, on this run's images: `make exam`.

The exam that a run holds by itself, with three strengths of damage instead of one, more images, and
more figures: those of version 1.0 among them. It needs a finished run, uses its test images, and
writes docs/exam.md. Most of its quarter of an hour goes into features.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.device import pick_device
from advloop.core.errors import UserError
from advloop.core.files import write_text
from advloop.core.random import generator, noise_for
from advloop.data.classes import load_classes
from advloop.data.dataset import load_dataset
from advloop.data.draws import draw_images
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.processes import process_of
from advloop.evaluation.exam import Measure, Sets, examine
from advloop.evaluation.exam_report import BLIND, FOOLED, SEES, Report
from advloop.evaluation.kid import kernel_distance
from advloop.evaluation.lite0 import Lite0
from advloop.evaluation.model import draw_samples
from advloop.evaluation.neighbours import coverage, precision, recall
from advloop.evaluation.reals import FILE, Reals, load_reals
from advloop.evaluation.results import VIEWS
from advloop.evaluation.views import Drawn, Views
from advloop.infra.output import print_safely
from advloop.models.autoencoder import load_codec
from advloop.models.codec import Codec
from advloop.models.conditions import load_conditioned
from advloop.params.data import DataParams, EncodeDatasetParams
from advloop.params.diffusion import read_diffusion
from advloop.params.evaluation import EvaluateParams
from advloop.params.loader import Params
from advloop.params.run import read_precision

Images = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[1]
SEED = 7  # of no run here, so that no claim uses these draws
DRAWS = 5  # of real images, for the spread
MARKS = {SEES: "", BLIND: "blind: ", FOOLED: "**fooled**: "}


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", default="64,128,160,224", help="pixels for the features (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/exam.md")
    args = parser.parse_args()
    try:
        sizes = sizes_of(args.sizes)
        params, outputs = Params.load(ROOT / "params.yaml"), ROOT / "outputs"
        settings = params.section("evaluate", EvaluateParams)
        codec = load_codec(outputs / "autoencoder", outputs / "latents", pick_device())
        reals = load_reals(outputs / "reals" / FILE)
        sets = make_sets(params, outputs, codec, reals.count)
        measure = figures(reals, settings, codec, sizes)
        share = settings.smallest_change
        report = examine(
            sets, measure, SEED, share, progress=lambda cases: tqdm(list(cases), desc="exam")
        )
    except UserError as error:
        sys.exit(f"error: {error}")
    source = params.section("data", DataParams).source
    write_text(args.out, page(report, source, share))
    print(f"wrote {args.out}")


def sizes_of(text: str) -> list[int]:
    """The numbers of --sizes; UserError if it holds anything else."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise UserError(f"--sizes {text}: must be whole numbers with commas between them") from None


def figures(reals: Reals, settings: EvaluateParams, codec: Codec, sizes: list[int]) -> Measure:
    """All figures of a set of images; those that should be high, from 1 down."""
    device, test = pick_device(), reals.test
    views = Views(test, settings, SEED, device)
    network = Lite0(settings.feature_size, device)
    others = {size: Lite0(size, device) for size in sizes if size != settings.feature_size}
    features = {size: other(test.images) for size, other in others.items()}

    def measure(images: Images) -> dict[str, float]:
        latents, own = codec.encode_all(images, settings.batch_size), network(images)
        found = views(Drawn(images, latents, own), 0, jackknife=False)
        values = {metric.name: measured.value for metric, measured in found.items()}
        values = {name: value for name, value in values.items() if name in VIEWS}
        levels = views.pixels.levels(images, jackknife=False)
        values |= {f"pixels, level {k}": level.value for k, level in enumerate(levels, 1)}
        for name, compute in (("precision", precision), ("recall", recall), ("coverage", coverage)):
            values[f"1 - {name}"] = 1 - compute(own, test.features)
        for size, other in others.items():
            own = other(images)
            values[f"kid at {size} px"] = kernel_distance(own, features[size]).value
            values[f"1 - precision at {size} px"] = 1 - precision(own, features[size])
        return values

    return measure


def make_sets(params: Params, outputs: Path, codec: Codec, count: int) -> Sets:
    """``count`` images each; UserError if the training images are too few for DRAWS sets."""
    device, dataset = pick_device(), load_dataset(outputs / "data")
    augmentation = params.section("encode_dataset", EncodeDatasetParams).augment
    stream = generator(SEED, "exam", "train")
    train = draw_images(dataset, "train", augmentation, stream, DRAWS * count)
    if len(train) < DRAWS * count:
        raise UserError(f"exam: {len(train)} training images, but {DRAWS * count} are needed")
    model = outputs / "base/checkpoint_best.pt"
    classes = load_classes(outputs / "latents")
    denoiser = load_conditioned(model, classes, outputs / "captions.safetensors").to(device)
    labels = None if classes is None else classes.sample_labels("test", count, SEED, "exam")
    settings = params.section("evaluate", EvaluateParams)
    process = process_of(read_diffusion(params))
    criterion = noise_criterion(process, read_precision(params), device)
    key = (SEED, "exam", "samples")
    of_base = settings.of_base()
    _, samples = draw_samples(denoiser, criterion, codec, of_base, labels, count, *key)
    clean, size = np.split(train, DRAWS), settings.batch_size
    rebuilt = codec.decode_all(codec.encode_all(clean[0], size), size)
    noise = noise_for(range(count), denoiser.latent_shape, *key)
    return Sets(clean, rebuilt, samples, codec.decode_all(noise, size))


def digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def page(report: Report, source: str, share: float) -> str:
    """docs/exam.md. share: of the way to the bound that damage may gain."""
    lines = [
        "# The exam of the figures",
        "",
        f"Made by `make exam` on `{source}`: {report.images} images in each set, real ones from "
        "the training split, measured against the test images. Lower is better in every figure.",
        "",
        "- **Garbage** has to be behind the base model.",
        "- **Damage to real images** (three strengths) fools a figure that puts it ahead of the "
        "same images by more than two deviations of its clean draws. A figure is *blind* to it if "
        "it does not rise with every strength, or not by two deviations in the end.",
        f"- **Damage to the base model's samples** may gain at most {share:g} of the way to the "
        "bound (`evaluate.smallest_change`), or two deviations of the clean draws.",
        "",
        "A figure that any case fools takes no part in a verdict or in the choice of a model. Each "
        "run holds this exam itself, in a short form: its report says which views passed.",
        "",
        "| figure | real ± deviation | bound | base model | fooled by |",
        "|---|---|---|---|---|",
    ]
    for name, clean in report.clean.items():
        failures = [str(row) for row in report.failures(name)]
        lines.append(
            f"| {name} | {digits(clean)} ± {digits(report.spread[name])} | "
            f"{digits(report.bound[name])} | {digits(report.samples[name])} | "
            f"{', '.join(failures) or 'nothing'} |"
        )
    lines += [
        "",
        f"All of {', '.join(VIEWS)} prefer to the base model's samples: "
        f"{', '.join(report.agreeing(VIEWS)) or 'none of the cases'}.",
        "",
        "## Every case",
        "",
        f"| on | case | {' | '.join(report.clean)} |",
        "|---|---|" + "---|" * len(report.clean),
    ]
    for row in report.rows:
        cells = [
            MARKS[row.found[name]] + ", ".join(digits(value[name]) for value in row.values)
            for name in report.clean
        ]
        lines.append(f"| {row.kind} | {row.case} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()

"""Examine the figures that models are judged by, on this run's images: `make exam`.

It needs a finished run, uses its `tune` images, and writes docs/exam.md. Two cores take ten
minutes, nearly all of them for features at 224 pixels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.device import pick_device
from advloop.core.errors import UserError
from advloop.core.files import write_text
from advloop.core.random import batches, generator, noise_for
from advloop.data.classes import count_classes, load_classes
from advloop.data.dataset import Dataset, load_dataset
from advloop.data.draws import draw_images
from advloop.diffusion.criterion import noise_criterion
from advloop.evaluation.exam import BLIND, FOOLED, SEES, Measure, Report, Sets, agreeing, examine
from advloop.evaluation.features import Lite0
from advloop.evaluation.kid import kernel_distance
from advloop.evaluation.layout import layout_distance
from advloop.evaluation.model import draw_samples
from advloop.evaluation.neighbours import coverage, precision
from advloop.evaluation.pixels import PixelView
from advloop.models.autoencoder import load_codec
from advloop.models.denoiser import check_classes, load_checkpoint
from advloop.params.data import DataParams, EncodeDatasetParams
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.loader import Params
from advloop.params.run import read_precision

Images = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[1]
SEED = 7  # of no run here, so that no claim uses these draws
DRAWS = 5  # of real images, for the spread
MARKS = {SEES: "", BLIND: "blind: ", FOOLED: "**fooled**: "}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="64,224", help="pixels for the features (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/exam.md")
    args = parser.parse_args()
    try:
        sizes = sizes_of(args.sizes)
        params = Params.load(ROOT / "params.yaml")
        outputs = ROOT / "outputs"
        dataset = load_dataset(outputs / "data")
        augmentation = params.section("encode_dataset", EncodeDatasetParams).augment
        real = draw_images(dataset, "tune", augmentation, generator(SEED, "exam", "tune"))
        measure = figures(real, sizes)
        sets = make_sets(params, outputs, dataset, augmentation, len(real))
        report = examine(sets, measure, SEED, lambda cases: tqdm(list(cases), desc="exam"))
    except UserError as error:
        sys.exit(f"error: {error}")
    views = ["pixels", "layout", f"KID {max(sizes)}"]
    write_text(args.out, page(report, views, len(real), params.section("data", DataParams).source))
    print(f"wrote {args.out}")


def sizes_of(text: str) -> list[int]:
    """The numbers of --sizes; UserError if it holds anything else."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise UserError(f"--sizes {text}: must be whole numbers with commas between them") from None


def figures(real: Images, sizes: list[int]) -> Measure:
    """All figures of a set of images against ``real``; those that should be high, from 1 down."""
    device = pick_device()
    pixels = PixelView(real, SEED)
    networks = {size: Lite0(size, device) for size in sizes}
    features = {size: network(real) for size, network in networks.items()}

    def measure(images: Images) -> dict[str, float]:
        levels = pixels.levels(images)
        values = {"pixels": sum(levels) / len(levels)}
        values |= {f"pixels, level {k}": level for k, level in enumerate(levels, 1)}
        values["layout"] = layout_distance(images, real)
        for size, network in networks.items():
            own = network(images)
            values[f"KID {size}"] = kernel_distance(own, features[size])
            values[f"1 - precision {size}"] = 1 - precision(own, features[size])
            values[f"1 - coverage {size}"] = 1 - coverage(own, features[size])
        return values

    return measure


def make_sets(
    params: Params, outputs: Path, dataset: Dataset, augmentation: str, count: int
) -> Sets:
    """``count`` images each; UserError if the training images are too few for DRAWS sets."""
    device = pick_device()
    train = draw_images(
        dataset, "train", augmentation, generator(SEED, "exam", "train"), DRAWS * count
    )
    if len(train) < DRAWS * count:
        raise UserError(f"exam: {len(train)} training images, but {DRAWS * count} are needed")
    codec = load_codec(outputs / "autoencoder", outputs / "latents", device)
    model = outputs / "base/checkpoint_best.pt"
    denoiser = load_checkpoint(model).moved_to(device)
    classes = load_classes(outputs / "latents")
    check_classes(model, denoiser, count_classes(classes))
    labels = None if classes is None else classes.sample_labels("test", count, SEED, "exam")
    settings = params.section("evaluate", EvaluateParams)
    process = params.section("diffusion", DiffusionParams)
    criterion = noise_criterion(process, read_precision(params), device)
    key = (SEED, "exam", "samples")
    _, samples = draw_samples(denoiser, criterion, codec, settings, labels, count, *key)
    parts = batches(count, settings.batch_size)
    clean = np.split(train, DRAWS)
    rebuilt = [codec.decode(codec.encode(clean[0][part.start : part.stop])) for part in parts]
    gaussian = [codec.decode(noise_for(part, denoiser.latent_shape, *key)) for part in parts]
    return Sets(clean, np.concatenate(rebuilt), samples, np.concatenate(gaussian))


def digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def page(report: Report, views: list[str], count: int, source: str) -> str:
    """docs/exam.md."""
    lines = [
        "# The exam of the figures",
        "",
        f"Made by `make exam` on `{source}`: {count} images in each set, real ones from the "
        "training split, measured against `tune`. Every figure is better if it is lower.",
        "",
        "- **Garbage** has to be behind the base model.",
        "- **Damage to real images** has to be behind the same images, the more so the stronger it "
        "is (three strengths). A figure is *blind* to what changes it by less than two deviations "
        "of its clean draws.",
        "- **Damage to the base model's samples** may gain at most a tenth of the way to the "
        "bound.",
        "",
        "A figure that is fooled by any case must not be used alone in a verdict.",
        "",
        "| figure | real ± deviation | bound | base model | fooled by |",
        "|---|---|---|---|---|",
    ]
    for name, clean in report.clean.items():
        failures = report.failures(name)
        lines.append(
            f"| {name} | {digits(clean)} ± {digits(report.spread[name])} | "
            f"{digits(report.bound[name])} | {digits(report.samples[name])} | "
            f"{', '.join(failures) or 'nothing'} |"
        )
    fooled = agreeing(report, views)
    lines += [
        "",
        f"All of {', '.join(views)} prefer to the base model's samples: "
        f"{', '.join(fooled) or 'none of the cases'}.",
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
    torch.set_grad_enabled(False)
    main()

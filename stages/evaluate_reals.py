"""Stage evaluate_reals: what models are measured against, and the floor of each metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import load_params, parse_args, run_stage

from advloop.autoencoder import Codec, load_autoencoder
from advloop.classes import load_classes, number_of
from advloop.core.errors import UserError
from advloop.core.io import write_json
from advloop.core.progress import bar
from advloop.core.runtime import batches, deterministic, device, generator
from advloop.dataset import load_dataset
from advloop.evaluation.critic import two_sample_test
from advloop.evaluation.features import load_features
from advloop.evaluation.metrics import describe, make_row, measure, measure_classes
from advloop.evaluation.reals import Reals, draw_images, draw_rows, nearest_training, save_reals
from advloop.grids import image_grid, save_png
from advloop.intervals import Seeds
from advloop.latent_files import load_latents, read_scale
from advloop.params.data import EncodeDatasetParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_seed
from advloop.shown import SAMPLES, save_grid


def main() -> None:
    args = parse_args(__doc__, data=Path, autoencoder=Path, latents=Path, out=Path)
    params = load_params("evaluate_reals")
    settings = params.section("evaluate", EvaluateParams)
    augmentation = params.section("encode_dataset", EncodeDatasetParams).augment
    seed = read_seed(params)
    dataset = load_dataset(args.data)
    deterministic()
    scaling = read_scale(args.latents / "stats.json")
    codec = Codec(load_autoencoder(args.autoencoder).to(device()), *scaling)
    features = load_features(settings.features, codec, settings.feature_size, device())
    train = load_latents(args.latents / "train.pt")
    test = load_latents(args.latents / "test.pt", (train.shape[1], *train.shape[2:]))

    def stream(*key: str) -> torch.Generator:
        return generator(seed, "evaluate_reals", *key)

    def images_of(split: str, count: int | None = None) -> np.ndarray:
        return draw_images(dataset, split, augmentation, stream(split), count)

    wanted = settings.num_samples * settings.num_seeds
    other = images_of("train", wanted)
    rebuilt = np.concatenate(
        [
            codec.decode(codec.encode(other[part.start : part.stop]))
            for part in bar("evaluate_reals")(batches(len(other), settings.batch_size))
        ]
    )
    test_rows = dataset.rows("test")
    if len(test) % len(test_rows):
        raise UserError(
            f"{args.latents / 'test.pt'}: {len(test)} latents of {len(test_rows)} images; remake "
            "it with `dvc repro`"
        )
    latents = test.unflatten(0, (-1, len(test_rows)))
    classes = load_classes(args.latents)
    if (classes is None) == bool(dataset.classes):
        raise UserError(
            f"{args.data / 'manifest.csv'}: has {len(set(dataset.classes))} classes, but the "
            f"latents have {number_of(classes)}; remake both with `dvc repro`"
        )

    def labels_of(split: str, count: int | None = None) -> torch.Tensor:
        assert classes is not None
        chosen = draw_rows(dataset, split, stream(split), count)
        return classes.numbers([dataset.classes[row] for row in chosen], args.data)

    reals = Reals(
        features={name: features(images_of(name)) for name in ("tune", "test")},
        latents=latents,
        groups=[dataset.groups[row] for row in test_rows],
        nearest=nearest_training(latents[0].to(device()), train, settings.batch_size),
        labels=None if classes is None else labels_of("test"),
    )
    save_reals(args.out / "reals.pt", reals)

    def parts(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values.tensor_split(settings.num_seeds)

    # rows of train.pt: variant by variant of the images of train
    shares = parts(torch.randperm(len(train), generator=stream("critic"))[:wanted])
    train_groups = [dataset.groups[row] for row in dataset.rows("train")]
    measured = {"reals": parts(features(other)), "autoencoder": parts(features(rebuilt))}
    by_class: dict[str, Seeds] = {}
    if reals.labels is not None:
        told = labels_of("train", wanted).tensor_split(settings.num_seeds)
        real = reals.features["test"], reals.labels
        by_class = {
            name: measure_classes(samples, told, *real, features.name)
            for name, samples in measured.items()
        }
    rows = {
        # training images of other groups: what a perfect model's samples would measure
        "reals": measure(measured["reals"], reals.features, features.name)
        | two_sample_test(
            reals.latents,
            reals.groups,
            [train[share] for share in shares],
            settings,
            seed,
            device(),
            [[train_groups[row % len(train_groups)] for row in share] for share in shares],
        ),
        # the same images through the autoencoder: what no diffusion model on it can beat
        "autoencoder": measure(measured["autoencoder"], reals.features, features.name),
    }
    floors = {name: make_row(seeds | by_class.get(name, {})) for name, seeds in rows.items()}
    write_json(args.out / "reals.json", floors)
    chosen = torch.randperm(len(test_rows), generator=generator(seed, "pictures"))[:16]
    shown = dataset.images[test_rows[chosen]]
    save_png(args.out / "reals.png", image_grid(shown[:8], columns=8))
    save_grid(args.out / "reals" / "reals" / SAMPLES, shown, columns=4)
    for name, row in floors.items():
        print(f"{name}: {describe(row)}")


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

"""Stage evaluate_reals: what models are measured against, and the floor of each metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import load_params, parse_args, run_stage

from advloop.autoencoder import Codec, load_autoencoder
from advloop.critic import two_sample_test
from advloop.dataset import load_dataset
from advloop.errors import UserError
from advloop.features import load_features
from advloop.grids import image_grid, save_png
from advloop.io import write_json
from advloop.latent_files import load_latents, read_scale
from advloop.metrics import describe, make_row, measure
from advloop.params.data import EncodeDatasetParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_seed
from advloop.reals import Reals, draw_images, nearest_training, save_reals
from advloop.runtime import batches, deterministic, device, generator


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
            for part in batches(len(other), settings.batch_size)
        ]
    )
    test_rows = dataset.rows("test")
    if len(test) % len(test_rows):
        raise UserError(
            f"{args.latents / 'test.pt'}: {len(test)} latents of {len(test_rows)} images; remake "
            "it with `dvc repro`"
        )
    latents = test.unflatten(0, (-1, len(test_rows)))
    reals = Reals(
        features={name: features(images_of(name)) for name in ("tune", "test")},
        latents=latents,
        groups=[dataset.groups[row] for row in test_rows],
        nearest=nearest_training(latents[0].to(device()), train, settings.batch_size),
    )
    save_reals(args.out / "reals.pt", reals)

    def parts(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values.tensor_split(settings.num_seeds)

    # rows of train.pt: variant by variant of the images of train
    shares = parts(torch.randperm(len(train), generator=stream("critic"))[:wanted])
    train_groups = [dataset.groups[row] for row in dataset.rows("train")]
    rows = {
        # training images of other groups: what a perfect model's samples would measure
        "reals": measure(parts(features(other)), reals.features, features.name)
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
        "autoencoder": measure(parts(features(rebuilt)), reals.features, features.name),
    }
    floors = {name: make_row(seeds) for name, seeds in rows.items()}
    write_json(args.out / "reals.json", floors)
    chosen = torch.randperm(len(test_rows), generator=generator(seed, "pictures"))[:8]
    save_png(args.out / "reals.png", image_grid(dataset.images[test_rows[chosen]], columns=8))
    for name, row in floors.items():
        print(f"{name}: {describe(row)}")


if __name__ == "__main__":
    run_stage(main, memory="evaluate.batch_size")

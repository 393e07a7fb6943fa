"""Stage evaluate_reals: features of the evaluation-only reals, and the floor of each metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import load_params, parse_args, run_stage

from advloop.autoencoder import Codec, load_autoencoder
from advloop.dataset import load_dataset
from advloop.features import NETWORK, image_features, load_network
from advloop.grids import image_grid, save_png
from advloop.io import save_torch, write_json
from advloop.latent_files import read_scale
from advloop.metrics import measure
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_seed
from advloop.runtime import batches, deterministic, device, generator


def main() -> None:
    args = parse_args(__doc__, data=Path, autoencoder=Path, stats=Path, out=Path)
    params = load_params("evaluate_reals")
    settings = params.section("evaluate", EvaluateParams)
    dataset = load_dataset(args.data)
    deterministic()
    network = load_network(device())
    test = dataset.images[dataset.rows("test")]
    train = dataset.rows("train")
    order = torch.randperm(len(train), generator=generator(read_seed(params), "evaluate_reals"))
    other = dataset.images[train[order[: settings.num_samples * settings.num_seeds].numpy()]]
    codec = Codec(load_autoencoder(args.autoencoder).to(device()), read_scale(args.stats))
    rebuilt = np.concatenate(
        [
            codec.decode(codec.encode(other[part.start : part.stop]))
            for part in batches(len(other), settings.batch_size)
        ]
    )
    features = {
        name: image_features(network, images, settings.feature_size, device())
        for name, images in (("test", test), ("train", other), ("rebuilt", rebuilt))
    }
    save_torch(args.out / "reals.pt", features["test"])
    rows = {
        # training images of other maps: what a perfect model's samples would measure
        "reals": features["train"],
        # the same images through the autoencoder: what no diffusion model on it can beat
        "autoencoder": features["rebuilt"],
    }
    floors = {
        name: measure(part.tensor_split(settings.num_seeds), features["test"], NETWORK)
        for name, part in rows.items()
    }
    write_json(
        args.out / "reals.json",
        {name: {k: round(v, 6) for k, v in row.items()} for name, row in floors.items()},
    )
    chosen = torch.randperm(len(test), generator=generator(read_seed(params), "pictures"))[:8]
    save_png(args.out / "reals.png", image_grid(test[chosen.numpy()], columns=8))
    for name, row in floors.items():
        print(f"{name}: " + ", ".join(f"{key}={value:.4f}" for key, value in row.items()))


if __name__ == "__main__":
    run_stage(main)

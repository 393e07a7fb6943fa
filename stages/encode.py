"""Stage encode@i: draw real images without augmentation and gather their latents.

encode_dataset has encoded every image that may be drawn: nothing is encoded twice.
"""

from __future__ import annotations

from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

import torch

from advloop.core.errors import UserError
from advloop.core.random import batches
from advloop.data.dataset import Dataset, load_dataset, write_manifest
from advloop.data.draws import draw_reals, gather_reals
from advloop.data.latents import TensorWriter, load_latents
from advloop.params.run import read_seed
from advloop.params.training import GenerateParams

BATCH = 256  # latents copied at once; bounds memory, changes nothing


def load_split(
    folder: Path, dataset: Dataset, split: str, shape: tuple[int, int, int] | None = None
) -> torch.Tensor:
    """Latents of a split, variant by variant of its images; UserError if they do not match."""
    path, count = folder / f"{split}.pt", len(dataset.rows(split))
    latents = load_latents(path, shape)
    if len(latents) % count:
        raise UserError(
            f"{path}: {len(latents)} latents of {count} images; remake it with `dvc repro`"
        )
    return latents


def main() -> None:
    args = parse_args(__doc__, iteration=int, data=Path, latents=Path, out=Path, manifest=Path)
    params = load_params("encode", args.iteration)
    wanted = params.section("generate", GenerateParams).num_samples
    dataset = load_dataset(args.data)
    rows = draw_reals(dataset, wanted, read_seed(params), args.iteration)
    if len(rows) < wanted:
        print(
            f"{len(rows)} real images instead of {wanted}: train has no more, and val gives at "
            "most a fifth; train_disc uses as many fakes as reals"
        )
    train = load_split(args.latents, dataset, "train")
    channels, height, width = train.shape[1:]
    val = load_split(args.latents, dataset, "val", (channels, height, width))
    latents = gather_reals(dataset, rows, train, val)
    with TensorWriter(args.out, latents.shape) as writer:
        for part in batches(len(latents), BATCH):
            writer.append(latents[part.start : part.stop])
    write_manifest(args.manifest, [dataset.manifest_row(row) for row in rows])
    print(f"{len(latents)} latents {list(latents.shape[1:])}")


if __name__ == "__main__":
    run_stage(main, memory="generate.num_samples")

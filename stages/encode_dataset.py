"""Stage encode_dataset: the latents of the splits, and the one scale that they carry."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.processes import run_shared_stage
from _runtime.snapshots import resumable

from advloop.core.device import deterministic, pick_device
from advloop.core.files import write_json
from advloop.core.processes import is_main_process
from advloop.data.classes import label_latents, save_classes
from advloop.data.dataset import load_dataset
from advloop.infra.progress import bar
from advloop.infra.snapshots import RowProgress
from advloop.models.autoencoder import load_autoencoder, read_scaling
from advloop.models.codec import Codec, encode_rows, latent_scale
from advloop.params.data import VARIANTS, EncodeDatasetParams
from advloop.params.run import read_precision


def main() -> None:
    args = parse_args(__doc__, data=Path, autoencoder=Path, out=Path)
    params = load_params("encode_dataset")
    settings = params.section("encode_dataset", EncodeDatasetParams)
    dataset = load_dataset(args.data)
    deterministic()
    own, shift = read_scaling(args.autoencoder)
    model = load_autoencoder(args.autoencoder).to(pick_device())
    codec = Codec(model, 1.0 if own is None else own, shift, read_precision(params))
    measured = latent_scale(codec, dataset.images, dataset.rows("train"), settings.batch_size)
    if own is None:
        codec.scale = measured
    # Critics see the test images as the model sees its training set, in every orientation. Only
    # the images of tune are compared, never their latents.
    augmentations = {"train": settings.augment, "val": "none", "test": settings.augment}
    sizes = {s: math.ceil(len(dataset.rows(s)) / settings.batch_size) for s in augmentations}
    total = sum(VARIANTS[kind] * sizes[split] for split, kind in augmentations.items())
    progress, shapes = bar("encode_dataset", total), {}
    with resumable(args, params, "out") as resume:
        done = RowProgress(resume)
        for split, augmentation in augmentations.items():
            shapes[split] = encode_rows(
                codec,
                dataset.images,
                dataset.rows(split),
                settings.batch_size,
                args.out / f"{split}.pt",
                progress,
                augmentation,
                done,
            )
    if not is_main_process():
        return
    if dataset.conditions:
        save_classes(args.out, label_latents(dataset, {name: n[0] for name, n in shapes.items()}))
    stats = {
        "latent_scale": codec.scale,
        "latent_shift": codec.shift,
        "latent_shape": list(shapes["train"][1:]),
    }
    write_json(args.out / "stats.json", stats | {k: v[0] for k, v in shapes.items()})
    if isinstance(codec.scale, tuple):
        print(f"latents {stats['latent_shape']}, scale and shift of each channel")
    else:
        print(f"latents {stats['latent_shape']}, scale {codec.scale:.6f}, shift {codec.shift:g}")
    size = 1 / measured
    if own is not None and not 0.5 < size < 2:
        print(
            f"warning: with the autoencoder's own scaling_factor the latents of these images have "
            f"a root mean square of {size:.3f}, not about 1; if the base model is trained here, "
            "set scaling_factor (and latents_mean and latents_std, if there) to null in the "
            "autoencoder's config.json",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_shared_stage(main, memory="encode_dataset.batch_size")

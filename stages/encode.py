"""Stage encode@i: draw real images without augmentation and encode them."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args
from processes import run_shared_stage
from resuming import resumable

from advloop.autoencoder import Codec, load_autoencoder
from advloop.core.leader import leads
from advloop.core.progress import bar
from advloop.core.resume import RowProgress
from advloop.core.runtime import deterministic, device
from advloop.dataset import load_dataset
from advloop.draw import draw_reals
from advloop.latent_files import read_scale
from advloop.latents import encode_rows
from advloop.manifest import write_manifest
from advloop.params.run import read_precision, read_seed
from advloop.params.sampling import EncodeParams, GenerateParams


def main() -> None:
    args = parse_args(
        __doc__, iteration=int, data=Path, autoencoder=Path, stats=Path, out=Path, manifest=Path
    )
    params = load_params("encode", args.iteration)
    wanted = params.section("generate", GenerateParams).num_samples
    dataset = load_dataset(args.data)
    rows = draw_reals(dataset, wanted, read_seed(params), args.iteration)
    if len(rows) < wanted:
        print(
            f"{wanted} real images wanted, {len(rows)} drawn: train has no more (and val gives its "
            "fifth); each is used once and train_disc balances the classes"
        )
    deterministic()
    codec = Codec(
        load_autoencoder(args.autoencoder).to(device()),
        *read_scale(args.stats),
        precision=read_precision(params),
    )
    batch_size = params.section("encode", EncodeParams).batch_size
    with resumable(args, params, "out", "manifest") as resume:
        shape = encode_rows(
            codec,
            dataset.images,
            rows,
            batch_size,
            args.out,
            bar("encode"),
            done=RowProgress(resume),
        )
    if not leads():
        return
    write_manifest(
        args.manifest,
        [dataset.manifest_row(r) for r in rows],
    )
    print(f"{shape[0]} latents {list(shape[1:])}")


if __name__ == "__main__":
    run_shared_stage(main, memory="encode.batch_size")

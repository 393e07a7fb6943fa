"""Stage publish_samples@i-eee: one sample grid under the experiment's name."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.core.io import copy_file
from advloop.params.run import read_exp_name


def main() -> None:
    args = parse_args(__doc__, iteration=int, epoch=str, samples=Path, out=Path)
    name = read_exp_name(load_params("publish_samples", args.iteration))
    copy_file(
        args.samples / f"epoch_{args.epoch}_samples.png",
        args.out / f"{name}_iter_{args.iteration}_epoch_{args.epoch}_samples.png",
    )


if __name__ == "__main__":
    run_stage(main)

"""Stage publish@i: this iteration's checkpoints and metrics under the experiment's name."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.core.io import copy_file
from advloop.params.run import read_exp_name


def main() -> None:
    args = parse_args(__doc__, iteration=int, training=Path, out=Path)
    name = read_exp_name(load_params("publish", args.iteration))
    prefix = f"{name}_iter_{args.iteration}"
    for kind in ("best", "latest"):
        copy_file(
            args.training / f"checkpoint_{kind}.pt",
            args.out / "checkpoints" / f"{prefix}_checkpoint_{kind}.pt",
        )
    copy_file(args.training / "metrics.csv", args.out / f"{name}_metrics_iter_{args.iteration}.csv")


if __name__ == "__main__":
    run_stage(main)

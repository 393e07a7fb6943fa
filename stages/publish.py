"""Stage publish: what the rounds wrote, under the experiment's name."""

from __future__ import annotations

import shutil
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.errors import UserError, counted
from advloop.core.files import copy_file
from advloop.core.rounds import prune_rounds
from advloop.params.run import read_exp_name, read_num_iterations


def main() -> None:
    args = parse_args(__doc__, rounds=Path, out=Path)
    params = load_params("publish")
    name = read_exp_name(params)
    rounds = prune_rounds(args.rounds, read_num_iterations(params))
    files = {target: source for one in rounds for source, target in one.published(name)}
    for source in files.values():
        if not source.is_file():
            raise UserError(f"{source}: not found; make it with `dvc repro`")
    if args.out.is_dir():
        shutil.rmtree(args.out)  # files of an earlier name, or of rounds that are gone
    for target, source in files.items():
        copy_file(source, args.out / target)
    print(f"{args.out}: {counted(len(files), 'file')} of {counted(len(rounds), 'round')}")


if __name__ == "__main__":
    run_stage(main)

"""Stage select@i (and select_base): the best model so far by the tune images' KID."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.core.errors import UserError
from advloop.core.io import copy_file
from advloop.rows import read_rows
from advloop.selection import select


def main() -> None:
    args = parse_args(
        __doc__,
        optional=("previous",),
        name=str,
        evaluation=Path,
        model=Path,
        previous=Path,
        out=Path,
    )
    load_params(f"select {args.name}")
    chosen = select(read_rows(args.evaluation, args.name))
    if chosen != args.name and args.previous is None:
        raise UserError(
            f"{args.evaluation}: {chosen} is best, which comes after {args.name}; run `dvc repro`"
        )
    copy_file(args.model if chosen == args.name else args.previous, args.out)
    print(f"best so far: {chosen}")


if __name__ == "__main__":
    run_stage(main)

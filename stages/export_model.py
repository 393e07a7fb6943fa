"""Stage export: the selected model as a folder that diffusers loads."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.export import export_unet


def main() -> None:
    args = parse_args(__doc__, model=Path, out=Path)
    load_params("export")
    export_unet(args.model, args.out)


if __name__ == "__main__":
    run_stage(main)

"""Stage prepare: decode the source's images to one size and split them by group."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.manifest import write_manifest
from advloop.params.data import DataParams
from advloop.prepare import write_images
from advloop.progress import bar
from advloop.sources import SPLITS, list_items, open_source
from advloop.splits import assign_splits


def main() -> None:
    args = parse_args(__doc__, out=Path)
    params = load_params("prepare")
    data = params.section("data", DataParams)
    source = open_source(Path(data.source))
    items = list_items(source)
    splits = assign_splits(
        items, data.val_fraction, data.test_fraction, data.tune_fraction, data.split_seed
    )
    write_images(source, items, data.image_size, args.out / "images.npy", bar("prepare"))
    rows = [(item.file, item.group, split) for item, split in zip(items, splits, strict=True)]
    write_manifest(args.out / "manifest.csv", rows)
    counts = Counter(splits)
    print(
        f"{len(items)} images of {len({item.group for item in items})} groups: "
        + ", ".join(f"{counts[name]} {name}" for name in SPLITS)
    )


if __name__ == "__main__":
    run_stage(main)

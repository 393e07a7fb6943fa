"""Stage prepare: decode the source's images to one size and split them by group."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.errors import counted
from advloop.data.dataset import SPLITS
from advloop.data.listing import list_items
from advloop.data.prepare import prepare
from advloop.data.sources import open_source
from advloop.data.splits import class_lines
from advloop.infra.progress import bar, say
from advloop.params.data import DataParams


def main() -> None:
    args = parse_args(__doc__, out=Path)
    data = load_params("prepare").section("data", DataParams)
    source = open_source(Path(data.source))
    items = list_items(source, data.classes)

    def on_skip(problem: str) -> None:
        say(f"skipped: {problem}", sys.stderr)

    (kept, skipped, flat), splits = prepare(source, items, data, args.out, bar("prepare"), on_skip)
    counts, kind = Counter(splits), "image" if data.tiles == 1 else "tile"
    print(
        f"{counted(len(kept), kind)} of {counted(len({item.group for item in kept}), 'group')}: "
        + ", ".join(f"{counts[name]} {name}" for name in SPLITS)
        + (f"; {len(skipped)} of {len(items)} skipped" if skipped else "")
        + f"; {counted(flat, kind)} left out, flatter than data.max_flat={data.max_flat:g}"
        * (flat > 0)
    )
    for line in class_lines(kept, splits):
        print(line)


if __name__ == "__main__":
    run_stage(main)

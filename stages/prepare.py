"""Stage prepare: decode the source's images to one size and split them by group."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.caches import in_cache
from _runtime.errors import run_stage

from advloop.core.errors import counted
from advloop.data.dataset import SPLITS
from advloop.data.findings import findings
from advloop.data.listing import describe_captions, describe_groups, describe_unused, list_items
from advloop.data.prepare import prepare
from advloop.data.sizes import check_sizes
from advloop.data.sources import open_source
from advloop.data.splits import class_lines
from advloop.data.values import describe_range
from advloop.infra.progress import bar, say
from advloop.params.data import DataParams


def main() -> None:
    args = parse_args(__doc__, out=Path)
    params = load_params("prepare")
    data = params.section("data", DataParams)
    source = open_source(Path(data.source), in_cache)
    items = list_items(source, data.classes, data.captions)

    def on_skip(problem: str) -> None:
        say(f"skipped: {problem}", sys.stderr)

    progress = bar("prepare", 2 * len(items))  # for values, then for pixels
    check = partial(check_sizes, params)
    written, splits = prepare(source, items, data, args.out, progress, on_skip, check)
    kept, flat, kind = written.items, written.flat, "image" if data.tiles == 1 else "tile"
    counts = Counter(splits)
    print(
        f"{counted(len(kept), kind)} of {counted(len({item.group for item in kept}), 'group')}: "
        + ", ".join(f"{counts[name]} {name}" for name in SPLITS)
        + (f"; {len(written.skipped)} of {len(items)} skipped" if written.skipped else "")
        + f"; {counted(flat, kind)} left out, flatter than data.max_flat={data.max_flat:g}"
        * (flat > 0)
    )
    lines = [
        *class_lines(kept, splits),
        *describe_groups(source, items),
        *describe_captions(kept),
        *describe_unused(source, items),
        *(f"images {note}: {count}" for note, count in sorted(written.notes.items())),
        *([describe_range(written.values)] if written.values else []),
        *(f"warning: {line}" for line in findings(written.looks, kept, splits)),
    ]
    for line in lines:
        print(line)


if __name__ == "__main__":
    run_stage(main)

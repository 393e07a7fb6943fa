"""Stage report: one metrics file and one picture of the whole run, kept in git."""

from __future__ import annotations

from pathlib import Path

from common import load_params, parse_args, run_stage

from advloop.health import health_warning
from advloop.io import copy_file, write_json
from advloop.report import markdown_table, summary, worse_rounds
from advloop.rows import read_rows
from advloop.selection import select


def main() -> None:
    args = parse_args(__doc__, written="metrics", evaluation=Path, metrics=Path, picture=Path)
    load_params("report")
    rows = read_rows(args.evaluation, "reals", "autoencoder", "base")
    content = summary(rows)
    table = markdown_table(content)
    copy_file(args.evaluation.with_suffix(".png"), args.picture)
    write_json(args.metrics, content)
    print(table)
    print(f"final model: {select(rows)}")
    for line in worse_rounds(rows):
        print(f"warning: {line}; the final model goes by the tune images")
    for name, row in content["training"].items():
        accuracy = row.get("disc_val_accuracy")
        if accuracy is not None and (warning := health_warning(accuracy)):
            print(f"warning: {name}: {warning}")


if __name__ == "__main__":
    run_stage(main)

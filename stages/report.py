"""Stage report: metrics, a table of the rounds, a picture and a page of the run, kept in git."""

from __future__ import annotations

from pathlib import Path

from _runtime.arguments import load_params, parse_args
from _runtime.errors import run_stage

from advloop.core.files import write_json, write_text
from advloop.core.rounds import prune_rounds
from advloop.data.pictures import save_png
from advloop.evaluation.results import read_results
from advloop.evaluation.summary import TITLES, markdown_table, rounds_csv, summary
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import read_num_iterations
from advloop.reporting.page import page
from advloop.reporting.pictures import base_folders, samples_picture
from advloop.reporting.verdict import conclude


def main() -> None:
    args = parse_args(
        __doc__,
        written="metrics",
        base=Path,
        rounds=Path,
        reals=Path,
        metrics=Path,
        table=Path,
        picture=Path,
        page=Path,
    )
    params = load_params("report")
    rounds = prune_rounds(args.rounds, read_num_iterations(params))
    smallest = params.section("evaluate", EvaluateParams).smallest_change
    results = read_results(args.reals, args.base, rounds, smallest)
    settings = params.everything("card")  # which changes nothing that the page shows
    text = page(results, args.reals, args.base, rounds, settings)
    of_base = base_folders(results, args.base)
    strips = {"real images": args.reals, **{TITLES[name]: of_base[name] for name in of_base}}
    strips |= {f"round {one.index}": one.evaluation for one in rounds}
    save_png(args.picture, samples_picture(strips))
    write_text(args.page, text)
    write_text(args.table, rounds_csv(results))
    write_json(args.metrics, summary(results))
    verdict = conclude(results)
    print(markdown_table(results))
    print(f"final model: {verdict.selected}")
    print(verdict.headline)
    for line in verdict.reasons:
        print(f"- {line}")
    for line in verdict.warnings:
        print(f"warning: {line}")


if __name__ == "__main__":
    run_stage(main)

"""Stage report: metrics, a table of the rounds, a picture and a page of the run, kept in git."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import load_params, parse_args, run_stage
from omegaconf import OmegaConf

from advloop.core.io import copy_file, write_json, write_text
from advloop.params.loader import Params
from advloop.reporting.page import page
from advloop.reporting.report import markdown_table, rounds_csv, summary
from advloop.reporting.verdict import judge
from advloop.rows import read_rows
from advloop.shown import require_shown


def all_params(params: Params) -> dict[str, Any]:
    """What the page shows of params.yaml: all but what follows from the rest."""
    # one by one: a test compares the sections that a stage names with those that it declares
    sections = {
        "objective": params.section_node("objective"),
        "data": params.section_node("data"),
        "autoencoder": params.section_node("autoencoder"),
        "encode_dataset": params.section_node("encode_dataset"),
        "diffusion": params.section_node("diffusion"),
        "unet": params.section_node("unet"),
        "base": params.section_node("base"),
        "generate": params.section_node("generate"),
        "encode": params.section_node("encode"),
        "discriminator": params.section_node("discriminator"),
        "train_disc": params.section_node("train_disc"),
        "train_diffusion": params.section_node("train_diffusion"),
        "evaluate": params.section_node("evaluate"),
    }
    return {
        "exp_name": params.value("exp_name", str),
        "scale": params.value("scale", str),
        "num_iterations": params.value("num_iterations", int),
        "seed": params.value("seed", int),
        "precision": params.value("precision", str),
        **{name: OmegaConf.to_container(node) for name, node in sections.items()},
    }


def main() -> None:
    args = parse_args(
        __doc__,
        written="metrics",
        evaluation=Path,
        metrics=Path,
        rounds=Path,
        picture=Path,
        page=Path,
    )
    params = load_params("report")
    rows = read_rows(args.evaluation, "reals", "autoencoder", "base", "iter_0")
    content = summary(rows)
    table = markdown_table(content)
    shown = require_shown(args.evaluation.with_suffix(""))
    text = page(rows, shown, all_params(params))
    copy_file(args.evaluation.with_suffix(".png"), args.picture)
    write_text(args.page, text)
    write_text(args.rounds, rounds_csv(rows))
    write_json(args.metrics, content)
    verdict = judge(rows)
    print(table)
    print(f"final model: {verdict.selected}")
    print(verdict.headline)
    for line in verdict.warnings:
        print(f"warning: {line}")


if __name__ == "__main__":
    run_stage(main)

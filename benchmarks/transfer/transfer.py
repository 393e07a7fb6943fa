"""The default rounds on other images and another network: `make transfer` writes docs/transfer.md.

plan.yaml, committed before the runs, says which. Each run is a DVC experiment in a clone of its
own under .transfer/, so that it resumes where it stopped, and this folder stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tools"))

import yaml

from advloop.core.errors import UserError
from advloop.core.files import atomic_path, read_json, write_json
from advloop.core.rounds import Round
from advloop.evaluation.results import read_results
from advloop.infra.output import print_safely
from advloop.reporting.verdict import conclude
from readme_table import COLUMNS
from rendered_images import MANIFEST, NUMBER, draw_images
from transfer_page import page

ROOT = Path(__file__).resolve().parents[2]
PLAN: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "plan.yaml").read_text())
CLONES = ".transfer"
METRICS, PICTURE = "reports/metrics.json", "reports/samples.png"
RESULTS, PAGE, PICTURES = "docs/transfer.json", "docs/transfer.md", "docs/transfer"


def settings_of(name: str) -> list[str]:
    """What a run of the plan changes in params.yaml, as Hydra overrides."""
    run = PLAN["runs"][name]
    images = [f"data.source=data/{run['images']}"] if run["images"] else []
    return [f"seed={PLAN['seed']}", *images, *run["settings"]]


def execute(name: str, root: Path = ROOT) -> Path:
    """Make or go on with a run's clone and experiment, and return the clone.

    UserError if the run stops, or if its clone was made from another commit.
    """
    clone, images = root / CLONES / name, PLAN["runs"][name]["images"]
    if not clone.exists():
        half = clone.with_name(f"{name}.half")
        shutil.rmtree(half, ignore_errors=True)
        _run(["git", "clone", "--quiet", str(root), str(half)], root)
        half.rename(clone)
    elif commit_of(clone) != commit_of(root):
        raise UserError(
            f"{CLONES}/{name}: cloned from commit {commit_of(clone)}, and HEAD is "
            f"{commit_of(root)}; remove the folder to run {name} as the code is now"
        )
    if images and not (clone / "data" / images / MANIFEST).exists():
        draw_images(images, clone / "data" / images, NUMBER)
    options = [word for setting in settings_of(name) for word in ("-S", setting)]
    _run(["dvc", "exp", "run", *options], clone)
    return clone


def commit_of(folder: Path) -> str:
    command = ["git", "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _run(command: Sequence[str], folder: Path) -> None:
    # The stages find the library of their own clone.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    call = " ".join(command[:3])
    try:
        status = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not found; run `make transfer`, which has it") from None
    if status:
        raise UserError(
            f"`{call}` failed in {folder}, see above; `make transfer` goes on where it stopped"
        )


def collect(name: str, clone: Path) -> dict[str, Any]:
    """What docs/transfer.json keeps of a finished run."""
    metrics = read_json(clone / METRICS)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    outputs = clone / "outputs"
    rounds = [Round(outputs / "rounds", index) for index in range(params["num_iterations"])]
    smallest = params["evaluate"]["smallest_change"]
    verdict = conclude(read_results(outputs / "reals", outputs / "base", rounds, smallest))
    kept = {*COLUMNS, *(f"{column}_ci95" for column in COLUMNS)}
    accuracy = "disc_val_accuracy"
    return {
        "commit": commit_of(clone),
        "title": PLAN["runs"][name]["title"],
        "settings": settings_of(name),
        "headline": verdict.headline,
        "reasons": verdict.reasons,
        "warnings": verdict.warnings,
        "exam": metrics["exam"],
        "held_out": {
            model: {score: value for score, value in scores.items() if score in kept}
            for model, scores in metrics["held_out"].items()
            if model != "final"  # one of the others
        },
        "training": {
            model: {accuracy: scores[accuracy]} for model, scores in metrics["training"].items()
        },
    }


def remember(name: str, clone: Path, root: Path = ROOT) -> None:
    """Add a finished run to docs/transfer.json, and its picture to docs/transfer/."""
    known: dict[str, Any] = read_json(root / RESULTS) if (root / RESULTS).exists() else {}
    known[name] = collect(name, clone)
    write_json(root / RESULTS, {name: known[name] for name in PLAN["runs"] if name in known})
    with atomic_path(root / PICTURES / f"{name}.png") as temporary:
        shutil.copyfile(clone / PICTURE, temporary)


def write_page(root: Path = ROOT) -> None:
    if not (root / RESULTS).exists():
        raise UserError(f"{RESULTS}: not made yet; run `make transfer`")
    with atomic_path(root / PAGE) as temporary:
        temporary.write_text(page(read_json(root / RESULTS), read_json(root / METRICS)))
    print(f"wrote {PAGE}", flush=True)


def transfer(names: Sequence[str]) -> None:
    for name in names:
        remember(name, execute(name))
        write_page()


def main() -> int:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help=f"of {', '.join(PLAN['runs'])}; all by default"
    )
    parser.add_argument(
        "--report-only", action="store_true", help=f"write {PAGE} from {RESULTS}, and run nothing"
    )
    args = parser.parse_args()
    try:
        if unknown := set(args.runs) - set(PLAN["runs"]):
            raise UserError(
                f"{min(unknown)}: not in plan.yaml, which has {', '.join(PLAN['runs'])}"
            )
        if args.report_only:
            write_page()
        else:
            transfer(args.runs or list(PLAN["runs"]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `make transfer` goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a comparison found: docs/results.json, the pictures and the page."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import compare_paths
from omegaconf import DictConfig
from PIL import Image

from advloop.comparison import CONTROL, Comparison, kept_rows
from advloop.comparison_page import page
from advloop.core.errors import UserError
from advloop.core.io import atomic_path, read_json
from compare_cells import Arm, Cell, compose
from compare_git import experiments, git
from compare_state import remember_seconds

RESULTS, PAGE, TRIED = "docs/results.json", "docs/results.md", "docs/tried.md"
PICTURES = "docs/results"
COLOURS = 32  # of a picture: a quarter of its size, and plans have few


def steps_of(params: DictConfig) -> int | None:
    """Optimiser steps of one iteration; None where an epoch is all training latents."""
    training = params.train_diffusion
    if training.samples_per_epoch is None:
        return None
    return int(training.epochs * -(-training.samples_per_epoch // training.batch_size))


def describe(arms: Sequence[Arm], seeds: Sequence[int]) -> dict[str, Any]:
    """What is known of the results before any cell runs."""
    params = {arm.name: compose(arm, seeds[0]) for arm in arms}
    return {
        "commit": git("rev-parse", "--short=10", "HEAD").strip(),
        "scale": params[CONTROL].scale,
        "seeds": list(seeds),
        "arms": {
            arm.name: {
                "objective": arm.objective,
                "epochs": params[arm.name].train_diffusion.epochs,
                "steps": steps_of(params[arm.name]),
                "evaluations": arm.evaluations,
            }
            for arm in arms
        },
    }


def file_of(commit: str, path: str) -> bytes:
    return subprocess.run(
        ["git", "show", f"{commit}:{path}"],
        cwd=compare_paths.ROOT,
        check=True,
        capture_output=True,
    ).stdout


def collect(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Of the finished cells, by arm and seed."""
    done = experiments()
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.name in done:
            metrics = json.loads(file_of(done[cell.name][0], "reports/metrics.json"))
            found.setdefault(cell.arm.name, {})[str(cell.seed)] = {
                "experiment": cell.name,
                "seconds": remember_seconds(cell.name),
                "rows": kept_rows(metrics),
            }
    return found


def save_pictures(cells: Sequence[Cell]) -> None:
    """Of each arm's first seed, in few colours; those of other arms go."""
    done = experiments()
    first = min(cell.seed for cell in cells)
    shutil.rmtree(compare_paths.ROOT / PICTURES, ignore_errors=True)
    for cell in cells:
        if cell.seed == first and cell.name in done:
            shown = file_of(done[cell.name][0], "reports/samples.png")
            picture = Image.open(io.BytesIO(shown)).convert("RGB")
            small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
            with atomic_path(compare_paths.ROOT / PICTURES / f"{cell.arm.name}.png") as temporary:
                small.save(temporary, format="png", optimize=True)


def rendered(root: Path) -> str:
    """docs/results.md as it follows from docs/results.json, docs/tried.md and the pictures."""
    if not (root / RESULTS).exists():
        raise UserError(f"{RESULTS}: not made yet; run `make compare`")
    results = read_json(root / RESULTS)
    if not Comparison(results).iterations:
        raise UserError(f"{RESULTS}: holds no finished cell")
    pictures = {
        path.stem: path.relative_to(root / "docs").as_posix()
        for path in sorted((root / PICTURES).glob("*.png"))
    }
    return page(results, (root / TRIED).read_text(), pictures)


def write_page() -> None:
    text = rendered(compare_paths.ROOT)
    with atomic_path(compare_paths.ROOT / PAGE) as temporary:
        temporary.write_text(text)
    print(f"wrote {PAGE}", flush=True)

"""What a comparison found: docs/results.json, the pictures and the page."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image

import project
from advloop.core.errors import UserError
from advloop.core.files import atomic_path, read_json
from cells import Arm, Cell, compose
from comparison import CONTROL, Comparison
from experiments import experiments, read_file, remember_seconds
from project import git
from results_page import page
from scores import METRICS_FILE, PICTURE_FILE, compared_scores

RESULTS, PAGE, TRIED = "docs/results.json", "docs/results.md", "docs/tried.md"
PICTURES = "docs/results"
COLOURS = 32  # a quarter of the file's size, and floor plans have few colours


def steps_of(params: DictConfig) -> int | None:
    """Optimizer steps of one iteration; None if an epoch takes all training latents."""
    training = params.train_diffusion
    if training.samples_per_epoch is None:
        return None
    return int(training.epochs * -(-training.samples_per_epoch // training.batch_size))


def describe(arms: Sequence[Arm], seeds: Sequence[int]) -> dict[str, Any]:
    """The part of the results that is known before any cell runs."""
    params = {arm.name: compose(arm, seeds[0]) for arm in arms}
    return {
        "commit": git("rev-parse", "--short=10", "HEAD").strip(),
        "scale": params[CONTROL].scale,
        "seeds": list(seeds),
        "smallest_change": params[CONTROL].evaluate.smallest_change,
        "arms": {
            arm.name: {
                "objective": arm.objective,
                "epochs": params[arm.name].train_diffusion.epochs,
                "steps": steps_of(params[arm.name]),
                "evaluations": arm.evaluations,
                "settings": list(arm.settings),
            }
            for arm in arms
        },
    }


def collect(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """The finished cells, by arm and seed."""
    done = experiments()
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.name in done:
            metrics = json.loads(read_file(done[cell.name], METRICS_FILE))
            found.setdefault(cell.arm.name, {})[str(cell.seed)] = {
                "experiment": cell.name,
                "seconds": remember_seconds(cell.name),
                "exam": metrics["exam"],
                "rows": compared_scores(metrics),
            }
    return found


def save_pictures(cells: Sequence[Cell]) -> None:
    """One an arm, of its first seed, in few colours; pictures of other arms are removed."""
    done = experiments()
    first = min(cell.seed for cell in cells)
    shutil.rmtree(project.ROOT / PICTURES, ignore_errors=True)
    for cell in cells:
        if cell.seed == first and cell.name in done:
            samples = io.BytesIO(read_file(done[cell.name], PICTURE_FILE))
            picture = Image.open(samples).convert("RGB")
            small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
            with atomic_path(project.ROOT / PICTURES / f"{cell.arm.name}.png") as temporary:
                small.save(temporary, format="png", optimize=True)


def rendered(root: Path) -> str:
    """docs/results.md, made from docs/results.json, docs/tried.md and the pictures."""
    if not (root / RESULTS).exists():
        raise UserError(f"{RESULTS}: not made yet; run `make compare`")
    results = read_json(root / RESULTS)
    if not Comparison(results).iterations:
        raise UserError(f"{RESULTS}: no cell has finished; run `make compare`")
    pictures = {
        path.stem: path.relative_to(root / "docs").as_posix()
        for path in sorted((root / PICTURES).glob("*.png"))
    }
    return page(results, (root / TRIED).read_text(), pictures)


def write_page() -> None:
    text = rendered(project.ROOT)
    with atomic_path(project.ROOT / PAGE) as temporary:
        temporary.write_text(text)
    print(f"wrote {PAGE}", flush=True)

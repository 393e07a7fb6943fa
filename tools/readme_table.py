"""Put the scores of reports/metrics.json into README.md: `python tools/readme_table.py`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.evaluation.scores import with_interval
from advloop.evaluation.summary import TITLES, markdown

REPO = Path(__file__).resolve().parents[1]
README = REPO / "README.md"
MARKS = ("<!-- scores: begin -->", "<!-- scores: end -->")
COLUMNS = {  # a score's name in metrics.json: its title
    "network_calls": "calls",
    "pixels": "pixels ↓",
    "layout": "layout ↓",
    "kid_lite0": "KID ↓",
    "critic_gap": "latent critics ↓",
    "image_critic_gap": "image critics ↓",
}
HEADS = ["model", *COLUMNS.values(), "D accuracy"]


def cell(scores: Mapping[str, float], name: str) -> str:
    """``mean ± half``, or a whole number; empty if it was not measured."""
    if name not in scores:
        return ""
    mean, half = scores[name], scores.get(f"{name}_ci95")
    return f"{mean:g}" if half is None and mean == int(mean) else with_interval(mean, half)


def rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Title and cells of each model, as HEADS names them."""
    rounds = sorted(metrics["training"], key=lambda name: int(name.removeprefix("iter_")))
    found = []
    for model in (*(name for name in TITLES if name in metrics["held_out"]), *rounds):
        cells = [cell(metrics["held_out"][model], name) for name in COLUMNS]
        cells.append(cell(metrics["training"].get(model, {}), "disc_val_accuracy"))
        found.append([TITLES.get(model, model.replace("iter_", "after round ")), *cells])
    return found


def table(metrics: Mapping[str, Any]) -> str:
    """The table, a line a model; metrics: the content of reports/metrics.json."""
    return markdown(HEADS, rows(metrics))


def main() -> None:
    metrics = json.loads((REPO / "reports/metrics.json").read_text())
    begin, end = MARKS
    block = f"{begin}\n{table(metrics)}\n{end}"
    README.write_text(
        re.sub(f"{begin}.*?{end}", lambda _: block, README.read_text(), flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()

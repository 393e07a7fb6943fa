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
from advloop.evaluation.summary import TITLES

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


def cell(scores: Mapping[str, float], name: str) -> str:
    """``mean ± half``, or a whole number; empty if it was not measured."""
    if name not in scores:
        return ""
    mean, half = scores[name], scores.get(f"{name}_ci95")
    return f"{mean:g}" if half is None and mean == int(mean) else with_interval(mean, half)


def table(metrics: Mapping[str, Any]) -> str:
    """The table, a line a model; metrics: the content of reports/metrics.json."""
    heads = ["model", *COLUMNS.values(), "D accuracy"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    rounds = sorted(metrics["training"], key=lambda name: int(name.removeprefix("iter_")))
    known = [name for name in TITLES if name in metrics["held_out"]]
    for model in (*known, *rounds):
        scores = metrics["held_out"][model]
        cells = [cell(scores, name) for name in COLUMNS]
        cells.append(cell(metrics["training"].get(model, {}), "disc_val_accuracy"))
        title = TITLES.get(model, model.replace("iter_", "after round "))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    metrics = json.loads((REPO / "reports/metrics.json").read_text())
    begin, end = MARKS
    block = f"{begin}\n{table(metrics)}\n{end}"
    README.write_text(
        re.sub(f"{begin}.*?{end}", lambda _: block, README.read_text(), flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()

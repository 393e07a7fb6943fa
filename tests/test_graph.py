"""The report's picture of the stages says what dvc.yaml says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from conftest import REPO

from advloop.reporting.graph import HEIGHT, WIDTH, draw_graph

STAGES: dict[str, Any] = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
ROUNDS = 3


def resolve(stage: str) -> tuple[set[str], set[str]]:
    """What the stage of this name in the picture reads and writes, as paths."""
    name, _, item = stage.partition("@")
    body = STAGES[name].get("do", STAGES[name])
    i = int(re.match(r"[0-9]*", item)[0] or 0)  # type: ignore[index]  # matches everything
    values = {
        "key": str(i),
        "item": f"iter_{i - 1}" if i else "base",
        "item.iteration": str(i),
        "derived.last": f"iter_{ROUNDS - 1}",
    }

    def fill(entries: list[Any]) -> set[str]:
        texts = [next(iter(e)) if isinstance(e, dict) else e for e in entries]
        return {re.sub(r"\$\{(.*?)\}", lambda found: values.get(found[1], "any"), t) for t in texts}

    outs = [entry for kind in ("outs", "metrics", "plots") for entry in body.get(kind, [])]
    return fill(body["deps"]), fill(outs)


def test_every_stage_of_the_pipeline_has_one_box_and_no_other_has():
    drawn = [name for box in draw_graph(ROUNDS).boxes for name in box.names]
    assert len(set(drawn)) == len(drawn)
    expected = set()
    for name, body in STAGES.items():
        if "foreach" in body:
            expected |= {f"{name}@{i}" for i in range(ROUNDS)}
        elif "matrix" in body:
            expected |= {f"{name}@{i}-…" for i in range(ROUNDS)}
        else:
            expected.add(name)
    assert set(drawn) == expected


def test_every_arrow_is_a_dependency():
    graph = draw_graph(ROUNDS)
    boxes = {box.names[0]: box.names for box in graph.boxes}
    for arrow in graph.arrows:
        _, written = resolve(arrow.source)
        for target in boxes[arrow.target]:
            read, _ = resolve(target)
            used = {r for r in read for w in written if r == w or r.startswith(f"{w}/")}
            assert used, f"{target} reads nothing of {arrow.source}"


def test_every_box_but_the_first_and_those_of_real_images_is_reached():
    graph = draw_graph(ROUNDS)
    reached = {arrow.target for arrow in graph.arrows}
    left = {box.names[0] for box in graph.boxes} - reached
    assert left == {"check_config", *(f"encode@{i}" for i in range(ROUNDS))}


@pytest.mark.parametrize("rounds", [1, 4])
def test_boxes_lie_in_the_picture_and_apart(rounds):
    graph = draw_graph(rounds)
    for k, box in enumerate(graph.boxes):
        assert 0 <= box.x <= graph.width - WIDTH
        assert 0 <= box.y <= graph.height - HEIGHT
        for other in graph.boxes[:k]:
            assert abs(box.x - other.x) > WIDTH or abs(box.y - other.y) > HEIGHT

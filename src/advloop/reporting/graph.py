"""The stages of a run and the main ways between them, as boxes and arrows of a picture."""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = 3
WIDTH, HEIGHT = 132, 28  # of a box
ACROSS, DOWN = 152, 46  # from box to box

START = {
    "check_config": (0, 0),
    "prepare": (1, 0),
    "train_autoencoder": (2, 0),
    "encode_dataset": (3, 0),
    "evaluate_reals": (3, 1),
    "train_base": (4, 0),
    "evaluate_base": (4, 1),
    "select_base": (4, 2),
}
ROUND = {  # rows count from the round's first
    "generate": (0, 0),
    "encode": (0, 1),
    "train_disc": (1, 0),
    "publish": (1, 1),
    "train_diffusion": (2, 0),
    "evaluate": (2, 1),
    "select": (2, 2),
}
BESIDE = {"publish": "publish_samples"}  # a stage in the box of another that has its inputs
WAYS = (
    ("check_config", "prepare"),
    ("prepare", "train_autoencoder"),
    ("train_autoencoder", "encode_dataset"),
    ("encode_dataset", "train_base"),
    ("encode_dataset", "evaluate_reals"),
    ("train_base", "evaluate_base"),
    ("evaluate_reals", "evaluate_base"),
    ("evaluate_base", "select_base"),
)
ROUND_WAYS = (
    ("generate", "train_disc"),
    ("encode", "train_disc"),
    ("train_disc", "train_diffusion"),
    ("train_diffusion", "publish"),
    ("train_diffusion", "evaluate"),
    ("evaluate", "select"),
)


@dataclass(frozen=True)
class Box:
    """names: of the stages in it; x, y: its upper left corner."""

    names: list[str]
    x: int
    y: int


@dataclass(frozen=True)
class Arrow:
    """From one box's border to the other's."""

    source: str
    target: str
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class Graph:
    width: int
    height: int
    boxes: list[Box]
    arrows: list[Arrow]


def draw_graph(rounds: int) -> Graph:
    """The stages of a run of so many rounds, at least 1.

    Of what a stage depends on, the arrows show what the loop is about.
    """
    places = dict(START)
    ways = list(WAYS)
    row = 1 + max(y for y, _ in START.values())
    model, chosen = "train_base", "select_base"
    for i in range(rounds):
        places |= {f"{name}@{i}": (row + y, x) for name, (y, x) in ROUND.items()}
        ways += [(f"{a}@{i}", f"{b}@{i}") for a, b in ROUND_WAYS]
        ways += [(model, f"generate@{i}"), (chosen, f"select@{i}")]
        row += 1 + max(y for y, _ in ROUND.values())
        model, chosen = f"train_diffusion@{i}", f"select@{i}"
    places |= {"report": (row, 1), "export": (row, 2)}
    ways += [(f"evaluate@{rounds - 1}", "report"), (chosen, "export")]
    margin = 2
    boxes = {
        name: Box(_names(name), margin + x * ACROSS, margin + y * DOWN)
        for name, (y, x) in places.items()
    }
    return Graph(
        2 * margin + (COLUMNS - 1) * ACROSS + WIDTH,
        2 * margin + row * DOWN + HEIGHT,
        list(boxes.values()),
        [Arrow(a, b, *_ends(boxes[a], boxes[b])) for a, b in ways],
    )


def _names(name: str) -> list[str]:
    stage, at, item = name.partition("@")
    return [name, f"{BESIDE[stage]}{at}{item}-…"] if stage in BESIDE else [name]


def _ends(a: Box, b: Box) -> tuple[int, int, int, int]:
    """Where the arrow from a to b begins and ends: x1, y1, x2, y2."""
    middle = WIDTH // 2
    if a.y == b.y:
        return a.x + WIDTH, a.y + HEIGHT // 2, b.x, b.y + HEIGHT // 2
    if a.y < b.y:
        lean = 40 if a.x > b.x else 0  # to the near side of the target
        return a.x + middle - lean, a.y + HEIGHT, b.x + middle + lean, b.y
    return a.x + middle + 40, a.y, b.x + middle - 40, b.y + HEIGHT

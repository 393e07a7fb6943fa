"""Facts of progress bars: one a stage, with the time left, on a terminal only."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from common import run_stage
from conftest import REPO

from advloop.core.errors import UserError
from advloop.core.progress import bar, say

if TYPE_CHECKING:
    from stage_folder import StageFolder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(patch: pytest.MonkeyPatch, terminal: bool = True) -> io.StringIO:
    stream = Terminal() if terminal else io.StringIO()
    patch.setattr(sys, "stderr", stream)
    return stream


def test_bar_says_how_far_and_how_long_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)
    assert list(bar("train")(range(3))) == [0, 1, 2]
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("train: 100%|")
    assert " left" in last


def test_bar_is_silent_in_a_file_or_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch, terminal=False)
    assert list(bar("train")(range(3))) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_loops_of_one_stage_are_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)
    progress = bar("generate", total=2 * 4 + 2)
    list(progress(range(2), 4))
    assert progress._meter.n == 8
    assert "\n" not in stream.getvalue()
    list(progress(range(2)))
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().split("\r")[-1].startswith("generate: 100%|")


def test_line_stands_above_the_bar_and_not_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", stream)  # a terminal shows both
    for _ in bar("train")(range(2)):
        say("Epoch 1/2")
    shown = stream.getvalue().split("\r")
    lines = [part for part in shown if "Epoch" in part]
    assert lines
    assert all(line.startswith("Epoch 1/2\n") for line in lines), shown


def test_error_in_a_loop_starts_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)

    def main() -> None:
        progress = bar("train", total=9)  # which the traceback holds
        for _ in progress(range(3)):
            raise UserError("a.png: 0 bytes; remove it")

    with pytest.raises(SystemExit):
        run_stage(main)
    assert stream.getvalue().endswith(" left\nerror: a.png: 0 bytes; remove it\n")


one_worker = pytest.mark.xdist_group("bad_input")  # the good folder is made once
BARS = (
    "prepare",
    "train_autoencoder",
    "encode_dataset",
    "train_base",
    "generate",
    "encode",
    "train_disc",
    "train_diffusion",
    "evaluate",
)


@one_worker
@pytest.mark.parametrize("stage", BARS)
def test_stage_draws_one_bar_that_ends_full(stages: StageFolder, stage: str) -> None:
    stages.stream = Terminal
    outcome = stages.run(stage)
    assert outcome.status == 0, outcome
    drawn = [part for part in outcome.err.split("\r") if "%|" in part]
    assert {part.split(":")[0] for part in drawn} == {stage}
    assert drawn[-1].startswith(f"{stage}: 100%|")
    assert [part.endswith("\n") for part in drawn] == [False] * (len(drawn) - 1) + [True]


@one_worker
@pytest.mark.parametrize(
    ("stage", "csv"),
    [
        ("train_base", "made/base/metrics.csv"),
        ("train_disc", "made/disc/discriminator_history.csv"),
        ("train_diffusion", "made/diffusion/metrics.csv"),
    ],
)
def test_csv_has_the_row_of_an_epoch_when_its_line_is_printed(
    stages: StageFolder, stage: str, csv: str
) -> None:
    rows = []

    def look(text: str) -> None:
        if text.startswith("Epoch"):
            rows.append(len(Path(csv).read_text().splitlines()) - 1)

    stages.patch.setattr(importlib.import_module(stage), "say", look)
    assert stages.run(stage).status == 0
    assert rows == [1, 2]


@one_worker
def test_image_that_is_skipped_is_named_above_the_bar(stages: StageFolder) -> None:
    stages.stream = Terminal
    stages.set({"data": {"on_error": "skip"}})
    bad = next(path for path in sorted(Path("images").rglob("*.png")))
    bad.write_bytes(b"")
    outcome = stages.run("prepare")
    assert outcome.status == 0, outcome
    assert [part for part in outcome.err.split("\r") if part.startswith("skipped: ")]


def test_line_is_printed_as_it_is_where_no_bar_is_drawn(tmp_path: Path) -> None:
    code = "from advloop.core.progress import bar, say\nfor _ in bar('x')(range(1)): say('a\\n  b')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("a\n  b\n", "")

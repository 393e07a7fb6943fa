"""One progress bar per stage, with the time left, on a terminal only."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _runtime.errors import run_stage

import pytest
from conftest import REPO

from advloop.core.errors import UserError
from advloop.infra.progress import bar, say

if TYPE_CHECKING:
    from stage_folder import StageFolder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    """Standard error from now on (a fixture would be too early: pytest replaces it)."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_bar_shows_progress_and_time_left(monkeypatch: pytest.MonkeyPatch):
    terminal = show(monkeypatch, Terminal())
    assert list(bar("train")(range(3))) == [0, 1, 2]
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("train: 100%|")
    assert " left" in last


@pytest.mark.parametrize(
    ("stream", "rank"), [(io.StringIO(), "0"), (Terminal(), "1")], ids=["pipe", "other process"]
)
def test_bar_is_silent_in_a_pipe_and_in_all_but_the_main_process(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, rank: str
):
    show(monkeypatch, stream)
    monkeypatch.setenv("RANK", rank)
    assert list(bar("train")(range(3))) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_several_loops_are_one_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = show(monkeypatch, Terminal())
    progress = bar("generate", total=2 * 4 + 2)
    list(progress(range(2), 4))
    assert progress._meter.n == 8
    assert "\n" not in terminal.getvalue()
    list(progress(range(2)))
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().split("\r")[-1].startswith("generate: 100%|")


def test_line_is_printed_above_the_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = show(monkeypatch, Terminal())
    monkeypatch.setattr(sys, "stdout", terminal)  # a terminal shows both
    for _ in bar("train")(range(2)):
        say("Epoch 1/2")
    lines = [part for part in terminal.getvalue().split("\r") if "Epoch" in part]
    assert lines
    assert all(line.startswith("Epoch 1/2\n") for line in lines), lines


def test_error_in_a_loop_starts_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch):
    terminal = show(monkeypatch, Terminal())

    def main() -> None:
        progress = bar("train", total=9)
        for _ in progress(range(3)):
            raise UserError("a.png: 0 bytes; remove it")

    with pytest.raises(SystemExit):
        run_stage(main)
    assert terminal.getvalue().endswith(" left\nerror: a.png: 0 bytes; remove it\n")


def test_line_is_printed_unchanged_if_no_bar_is_shown(tmp_path: Path):
    code = "from advloop.infra.progress import bar, say\nfor _ in bar('x')([0]): say('a\\n  b')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("a\n  b\n", "")


# --- the bars of the stages ---

one_worker = pytest.mark.xdist_group("bad_input")  # the good folder is made once
BARS = (
    "prepare",
    "train_autoencoder",
    "encode_dataset",
    "train_base",
    "generate",
    "predict",
    "train_disc",
    "train_diffusion",
    "evaluate",
)
HISTORIES = {
    "train_base": "made/base/metrics.csv",
    "train_disc": "made/rounds/iter_0/discriminator/discriminator_history.csv",
    "train_diffusion": "made/rounds/iter_0/model/metrics.csv",
}


@one_worker
@pytest.mark.parametrize("stage", BARS)
def test_stage_draws_one_bar_that_ends_full_and_writes_an_epoch_before_it_prints_it(
    stages: StageFolder, stage: str
):
    stages.stream = Terminal
    rows = []

    def look(text: str) -> None:
        if text.startswith("Epoch"):
            rows.append(len(Path(HISTORIES[stage]).read_text().splitlines()) - 1)

    if stage in HISTORIES:
        stages.patch.setattr(importlib.import_module(stage), "say", look)
    outcome = stages.run(stage)
    assert outcome.status == 0, outcome
    bars = [part for part in outcome.err.split("\r") if "%|" in part]
    assert {part.split(":")[0] for part in bars} == {stage}
    assert bars[-1].startswith(f"{stage}: 100%|")
    assert [part.endswith("\n") for part in bars] == [False] * (len(bars) - 1) + [True]
    assert rows == ([1, 2] if stage in HISTORIES else [])


@one_worker
def test_skipped_image_is_named_above_the_bar(stages: StageFolder):
    stages.stream = Terminal
    stages.set({"data": {"on_error": "skip"}})
    bad = next(path for path in sorted(Path("images").rglob("*.png")))
    bad.write_bytes(b"")
    outcome = stages.run("prepare")
    assert outcome.status == 0, outcome
    assert [part for part in outcome.err.split("\r") if part.startswith("skipped: ")]

"""Facts of progress bars: one a stage, with the time left, on a terminal only."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

from advloop.progress import bar, say


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


def test_line_is_printed_as_it_is_where_no_bar_is_drawn(tmp_path: Path) -> None:
    code = "from advloop.progress import bar, say\nfor _ in bar('x')(range(1)): say('a\\n  b')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("a\n  b\n", "")

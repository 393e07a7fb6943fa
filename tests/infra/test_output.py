"""What is printed never costs a result: any encoding, a reader who has gone, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

WORK = r"""
import sys
sys.path[:0] = ["src", "stages"]
from pathlib import Path

def main():
    for number in range(2000):
        print("0.5 ± 0.1 → größe 图", number)
        print("warning: größe \udcff", file=sys.stderr)
    Path(sys.argv[1]).write_text("result")
"""
TOOL = f"{WORK}\nfrom advloop.infra.output import print_safely\nprint_safely()\nmain()"
STAGE = f"{WORK}\nfrom _runtime.errors import run_stage\nrun_stage(main)"


def run(tmp_path: Path, code: str, stdout: object, **env: str) -> None:
    """Run code that prints 100 kB and writes its result at the end."""
    flags = [] if code == STAGE else ["-S"]  # the standard library alone starts sooner
    program = [sys.executable, *flags, "-c", code, str(tmp_path / "result")]
    env = os.environ | env
    done = subprocess.run(program, cwd=REPO, env=env, stdout=stdout, stderr=stdout, check=False)
    assert done.returncode == 0
    assert (tmp_path / "result").read_text() == "result"


@pytest.mark.parametrize(
    ("code", "encoding"),
    [(STAGE, "ascii"), (TOOL, "cp1252"), (TOOL, "utf-8")],
    ids=["stage", "tool", "terminal"],
)
def test_what_the_encoding_lacks_is_printed_as_an_escape(tmp_path, code, encoding):
    with (tmp_path / "log").open("wb") as log:
        run(tmp_path, code, log, PYTHONIOENCODING=encoding)
    text = (tmp_path / "log").read_bytes().decode(encoding)
    assert "\\u56fe" in text or "图" in text
    assert text.count("größe" if encoding != "ascii" else "gr\\xf6\\xdfe") == 4000


def test_reader_that_has_gone_costs_nothing(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    run(tmp_path, TOOL, writing)
    os.close(writing)


def test_full_disk_under_the_log_costs_nothing(tmp_path):
    with Path("/dev/full").open("wb") as full:
        run(tmp_path, TOOL, full)


def test_closed_output_costs_nothing(tmp_path):
    shell = 'exec "$0" -S -c "$1" "$2" >&- 2>&-'
    program = ["sh", "-c", shell, sys.executable, TOOL, str(tmp_path / "result")]
    subprocess.run(program, cwd=REPO, check=True)
    assert (tmp_path / "result").read_text() == "result"


SCRIPTS = [
    path
    for folder in ("tools", "benchmarks")
    for path in (REPO / folder).rglob("*.py")
    if "__main__" in (text := path.read_text())
    and "print(" in text
    and "advloop" in text
    and "def main" in text
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_tool_prints_safely(path):
    assert "print_safely()" in path.read_text()

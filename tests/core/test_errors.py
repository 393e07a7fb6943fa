"""A message for a user is one line whatever it quotes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import _runtime

import pytest
from conftest import REPO

from advloop.core.errors import UserError, counted

STAGES = sorted((REPO / "stages").glob("*.py"))


@pytest.mark.parametrize(
    ("quoted", "escaped"),
    [
        ("a\nb\r.png", "a\\nb\\r.png"),
        ("\x1b[31m\x00", "\\x1b[31m\\x00"),
        ("a\x85b\u2028c", "a\\x85b\\u2028c"),
        ("\udcff.png", "\\udcff.png"),
        ("größe, 1\u202fPM 日本.png", "größe, 1\u202fPM 日本.png"),
    ],
)
def test_message_is_one_line_that_can_be_printed(quoted: str, escaped: str):
    message = str(UserError(f"{quoted}: not found"))
    assert message == f"{escaped}: not found"
    assert len(message.splitlines()) == 1
    message.encode()


def test_one_thing_is_singular():
    assert [counted(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]


COUNT = re.compile(r"\{(?:len\([^{}]*\)|count|number|steps)\} (?!as |is )[a-z]+s\b|\(s\)")
SPOKEN = ("tools", "src/advloop/data", "src/advloop/params", "src/hydra_plugins")


@pytest.mark.parametrize("folder", SPOKEN)
def test_message_never_says_1_images(folder: str):
    texts = [path.read_text() for path in sorted((REPO / folder).rglob("*.py"))]
    lines = [line for text in texts for line in text.splitlines() if " for " not in line]
    assert not [line for line in lines if COUNT.search(line)], "say it with `counted`"


@pytest.mark.parametrize("stage", STAGES, ids=lambda path: path.stem)
def test_stage_loads_what_explains_a_missing_package_before_any_package(stage: Path):
    names = []
    for node in ast.parse(stage.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name]
    other = [name for name in names if name.split(".")[0] not in sys.stdlib_module_names]
    assert other[0].startswith("_runtime")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'torch'"), "No module named 'torch'"),
        (ImportError("cannot import name 'TypeAdapter' from 'pydantic'"), "'TypeAdapter'"),
    ],
)
def test_stage_in_another_python_says_so_in_one_line(capsys, error: ImportError, said: str):
    _runtime.explain_import(type(error), error, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sys.executable} (Python 3.")
    assert said in line
    assert line.endswith("run `source .venv/bin/activate`, or `make setup` if there is no .venv")
    assert sys.excepthook is _runtime.explain_import


def test_python_without_the_packages_ends_a_stage_in_one_line():
    program = [sys.executable, "-S", str(REPO / "stages/check_config.py")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "is not the project's: No module named " in line

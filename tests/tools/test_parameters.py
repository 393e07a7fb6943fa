"""Facts of docs/parameters.md, which is made from conf/ and the checks of params.yaml."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated, Literal

import pytest
from conftest import REPO
from omegaconf import OmegaConf
from pydantic import Field, NonNegativeInt, PositiveInt

import parameters
from advloop.core.errors import UserError
from advloop.params.section import Section

PAGE = (REPO / "docs/parameters.md").read_text()


def flat_keys(path: Path) -> set[str]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return {
        f"{section}.{key}" if isinstance(values, dict) else section
        for section, values in content.items()
        for key in (values if isinstance(values, dict) else [section])
    }


def test_page_is_the_one_that_conf_and_the_code_make() -> None:
    assert parameters.page(REPO / "conf") == PAGE, "run `make docs`"


def test_page_has_a_row_for_every_value_of_params_yaml() -> None:
    keys = {k for k in flat_keys(REPO / "params.yaml") if not k.startswith("derived.")}
    assert len(keys) > 60
    for key in keys - {"objective.name", "diffusion.process"}:
        section, _, name = key.rpartition(".")
        heading = {"": "## Top level", "objective": "### adversarial"}.get(section, f"## {section}")
        part = PAGE.split(f"\n{heading}\n")[1].split("\n## ")[0]
        assert re.search(rf"^\| `{name}` \|", part, re.M), key


def test_page_shows_the_values_of_both_scales() -> None:
    (row,) = re.findall(r"^\| `num_samples` \| `600` \|.*$", PAGE, re.M)
    assert "| `5000` | whole number, at least 3 | fakes per round" in row


def test_comment_goes_on_in_the_lines_below_it(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"a:\n  b: 1  # one\n{' ' * 20}# two\n  c: [1]\n# of none\nd: 2 # three\n")
    found = parameters.comments(path)
    assert found == {"a": "", "a.b": "one two", "a.c": "", "d": "three"}


def test_value_without_a_comment_is_refused_with_its_name(tmp_path: Path) -> None:
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    for name in ("demo", "full"):
        path = tmp_path / f"conf/scale/{name}.yaml"
        path.write_text(re.sub(r"(  dropout: [\d.]+) .*", r"\1", path.read_text()))
    with pytest.raises(UserError, match=r"discriminator\.dropout has no comment"):
        parameters.page(tmp_path / "conf")


class Example(Section):
    count: PositiveInt
    part: Annotated[float, Field(gt=0, le=0.5)] | None
    widths: list[NonNegativeInt]
    name: Literal["a", "b"]
    only: Literal["a"]
    flag: bool


def test_types_and_ranges_are_said_in_words() -> None:
    assert dict(parameters.fields(Example)) == {
        "count": "whole number, at least 1",
        "part": "number, greater than 0, at most 0.5, or null",
        "widths": "list of whole numbers, at least 0",
        "name": "`a`, `b`",
        "only": "`a`",
        "flag": "true, false",
    }

"""Make docs/parameters.md: every parameter, from the comments of conf/ and the checked types.

What a value means is the comment beside it in conf/config.yaml, conf/scale/demo.yaml or
conf/objective/; its type and range are those that the stages check.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import yaml
from omegaconf import OmegaConf

from advloop.core.errors import UserError
from advloop.params.objectives import OBJECTIVES
from advloop.params.run import RULES
from advloop.params.schema import SECTIONS

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs/parameters.md"
KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*?)(?:\s+# (?P<comment>.*))?$")
NAMES = {
    "int": "whole number",
    "float": "number",
    "str": "text",
    "bool": "true, false",
    "list[int]": "list of whole numbers",
}


class Parameter(NamedTuple):
    """section: '' at the top level. values: as they stand, by the file that sets them."""

    section: str
    name: str
    kind: str
    values: tuple[Any, ...]
    comment: str


def comments(path: Path) -> dict[str, str]:
    """The comment beside each ``section.key`` of a YAML file, its continuation lines joined."""
    found: dict[str, str] = {}
    section = last = ""
    for line in path.read_text().splitlines():
        match = KEY.match(line)
        if match is None:
            beside = re.match(r" {20,}# (.*)", line)
            if beside and last:
                found[last] += f" {beside[1]}"
            else:
                last = ""
            continue
        if not match["indent"]:
            section = match["key"]
        last = f"{section}.{match['key']}" if match["indent"] else section
        found[last] = match["comment"] or ""
    return found


def kind(type_name: str, rules: Mapping[str, Any]) -> str:
    """Type and range in words."""
    base, _, optional = type_name.partition(" | ")
    words = NAMES[base]
    if "choices" in rules:
        words = ", ".join(f"`{value}`" for value in rules["choices"])
    elif "low" in rules:
        words += f", {'above' if rules['open_low'] else 'at least'} {rules['low']:.9g}"
        if not math.isinf(rules["high"]):
            words += f", at most {rules['high']:.12g}"
    return f"{words}, or null" if optional else words


def checked(cls: type) -> Iterator[tuple[str, str]]:
    """(name, kind) of each field of a dataclass of parameters."""
    for field in fields(cast(Any, cls)):
        yield field.name, kind(str(field.type), field.metadata)


def scale_parameters(conf: Path) -> Iterator[Parameter]:
    """Those of conf/config.yaml and conf/scale/, with the values of the demo and of full."""
    files = [conf / "config.yaml", conf / "scale/demo.yaml", conf / "scale/full.yaml"]
    config, demo, full = map(OmegaConf.load, files)
    said = {k: v for file in files[::-1] for k, v in comments(file).items() if v}
    known = [("", name, words) for name, words in RULES_IN_WORDS.items()]
    known += [(section, *row) for section, cls in SECTIONS.items() for row in checked(cls)]
    for section, name, words in known:
        key = f"{section}.{name}".lstrip(".")
        values = [OmegaConf.select(config, key, default=...), ...]
        if values[0] is ...:
            values = [OmegaConf.select(source, key) for source in (demo, full)]
        else:
            values[1] = values[0]
        yield Parameter(section, name, words, tuple(values), said.get(key, ""))


RULES_IN_WORDS = {
    "scale": "a file of `conf/scale/`",
    **{name: kind(type_name, rules) for name, (type_name, rules) in RULES.items()},
    "exp_name": "letters, digits, `.`, `_`, `-`; at most 64",
}


def objective_parameters(conf: Path) -> Iterator[Parameter]:
    """Those of each objective, its name as the section."""
    for name, cls in OBJECTIVES.items():
        path = conf / f"objective/{name}.yaml"
        content = OmegaConf.load(path)
        whole = "objective" in content  # it sets other sections, too
        said = comments(path)
        for field, words in checked(cls):
            if field == "name":
                continue
            key = f"objective.{field}" if whole else field
            yield Parameter(
                name, field, words, (OmegaConf.select(content, key),), said.get(key, "")
            )


def shown(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def table(rows: list[Parameter], *columns: str) -> list[str]:
    lines = ["| parameter | " + " | ".join(columns) + " | type and range | what it is |"]
    lines += ["|" + "---|" * (3 + len(columns))]
    for row in rows:
        if not row.comment:
            key = f"{row.section}.{row.name}".lstrip(".")
            raise UserError(f"conf: {key} has no comment beside it; write one, and `make docs`")
        values = " | ".join(f"`{shown(value)}`" for value in row.values)
        lines.append(f"| `{row.name}` | {values} | {row.kind} | {row.comment} |")
    return lines


def readers(stages: Mapping[str, Any], section: str) -> str:
    """The stages of dvc.yaml that declare a section, or some of its values."""
    shown = []
    for name, body in stages.items():
        keys = {**body, **body.get("do", {})}.get("params", [])
        parts = [f"`{key.partition('.')[2]}`" for key in keys if key.startswith(f"{section}.")]
        if section in keys or parts:
            shown.append(f"`{name}`" + (f" ({', '.join(parts)})" if parts else ""))
    return ", ".join(shown)


def other_settings(conf: Path) -> list[str]:
    """What an objective's file sets outside of its own section."""
    lines = []
    for name in OBJECTIVES:
        content: Any = OmegaConf.to_container(OmegaConf.load(conf / f"objective/{name}.yaml"))
        if "objective" in content:
            pairs = [
                f"`{section}.{key}={shown(value)}`"
                for section, values in content.items()
                if section != "objective"
                for key, value in values.items()
            ]
            lines += ["", f"Its file also sets {', '.join(pairs)}."]
    return lines


def page(conf: Path) -> str:
    """The text of docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Made by `make docs` from the comments in [`conf/`](../conf) and from the types and ranges",
        "that every stage checks: edit those, not this page. Set a value for one run by",
        "`dvc exp run -S section.parameter=value`, to last in `conf/config.yaml`, and then",
        "`make params`.",
        "What is no parameter changes no result but for rounding: the device (`ADVLOOP_DEVICE`),",
        "the number of threads (`OMP_NUM_THREADS`) and of processes (`ADVLOOP_PROCESSES`), bars.",
        "",
        "## Top level",
        "",
    ]
    rows = list(scale_parameters(conf))
    lines += table([row for row in rows if not row.section], "demo", "full")
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    for section in SECTIONS:
        read_by = readers(stages, section)
        lines += ["", f"## {section}", "", f"Read by {read_by}.", ""]
        lines += table([row for row in rows if row.section == section], "demo", "full")
    lines += [
        "",
        "## objective",
        "",
        f"Read by {readers(stages, 'objective')}.",
        "`-S objective=NAME` takes one of the files below whole, and `-S objective.weight=…`",
        "changes one value of it.",
    ]
    objectives = list(objective_parameters(conf))
    for name in OBJECTIVES:
        lines += ["", f"### {name}", ""]
        own = [row for row in objectives if row.section == name]
        lines += table(own, "value") if own else ["No parameters."]
        if name == "x0":
            lines += other_settings(conf)
    lines += [
        "",
        "## derived",
        "",
        "Computed from the values above for the templates of `dvc.yaml`. It is never set by hand:",
        "`check_config` refuses a `params.yaml` in which it does not follow from the rest.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        PAGE.write_text(page(REPO / "conf"))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

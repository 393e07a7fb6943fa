"""Write docs/parameters.md: what every parameter means, from conf/, and what it may be.

The meaning is the comment beside the value in conf/config.yaml, conf/scale/demo.yaml or
the files of a group, such as conf/objective/. Type and range come from the schemas that the stages
check.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import yaml
from omegaconf import OmegaConf
from pydantic import TypeAdapter

import hydra_plugins.advloop_derived  # noqa: F401  # the resolvers of conf/
from advloop.core.errors import UserError
from advloop.infra.output import print_safely
from advloop.objectives import recipe_of
from advloop.params.diffusion import PROCESSES
from advloop.params.run import VALUES
from advloop.params.section import Rule, Section, rule_of, rules
from advloop.params.sections import SECTIONS

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs/parameters.md"
KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*?)(?:\s+# (?P<comment>.*))?$")
NAMES = {
    "int": "whole number",
    "float": "number",
    "str": "text",
    "bool": "true, false",
    "list[int]": "list of whole numbers",
    "list[float]": "list of numbers",
}


class Parameter(NamedTuple):
    """section: '' at the top level. values: one per column, demo and full, or of a group's file."""

    section: str
    name: str
    kind: str
    values: tuple[Any, ...]
    comment: str


def comments(path: Path) -> dict[str, str]:
    """The comment beside each ``section.key`` of a YAML file, over all its lines."""
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


def in_words(rule: Rule) -> str:
    """Type and range."""
    words = ", ".join([NAMES[rule.kind], *rule.bounds])
    if rule.choices:
        words = ", ".join(f"`{value}`" for value in rule.choices)
    return f"{words}, or null" if rule.optional else words


def fields(cls: type[Section]) -> list[tuple[str, str]]:
    """(name, type and range) of each field."""
    return [(name, in_words(rule)) for name, rule in rules(cls).items()]


def top_level() -> list[tuple[str, str]]:
    """(name, type and range) of each value that is in no section."""
    special = {
        "scale": "a file of `conf/scale/`",
        "exp_name": "letters, digits, `.`, `_`, `-`; at most 64",
    }
    return [
        (name, special.get(name) or in_words(rule_of(TypeAdapter(kind).json_schema())))
        for name, kind in VALUES.items()
    ]


def scale_parameters(conf: Path) -> Iterator[Parameter]:
    """Parameters of conf/config.yaml and conf/scale/, with their values in demo and full."""
    files = [
        conf / name
        for name in ("config.yaml", "denoiser/unet.yaml", "scale/demo.yaml", "scale/full.yaml")
    ]
    config, denoiser, *scales = map(OmegaConf.load, files)
    composed = [  # in the order of its defaults
        OmegaConf.merge(scale, denoiser, config) for scale in scales
    ]
    comment_of = {k: v for file in files[::-1] for k, v in comments(file).items() if v}
    known = [("", *row) for row in top_level()]
    known += [(section, *row) for section, cls in SECTIONS.items() for row in fields(cls)]
    for section, name, words in known:
        key = f"{section}.{name}".lstrip(".")
        values = tuple(OmegaConf.select(source, key) for source in composed)
        yield Parameter(section, name, words, values, comment_of.get(key, ""))


def group_files(conf: Path, group: str) -> list[Path]:
    """What ``-S group=NAME`` takes by name; several may set one schema's values differently."""
    return sorted((conf / group).glob("*.yaml"))


def group_parameters(
    conf: Path, group: str, names: str, schema_of: Callable[[str], type[Section]]
) -> Iterator[Parameter]:
    """Parameters of each file of a group, with the file's name as the section.

    names: the parameter that chooses the schema, by ``schema_of``.
    """
    for path in group_files(conf, group):
        content: Any = OmegaConf.load(path)
        whole = group in content  # the file sets values of other sections, too
        values = content[group] if whole else content
        comment_of = comments(path)
        for field, words in fields(schema_of(values[names])):
            if field != names:
                comment = comment_of.get(f"{group}.{field}" if whole else field, "")
                yield Parameter(path.stem, field, words, (values[field],), comment)


def as_yaml(value: Any) -> str:
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
        values = " | ".join(f"`{as_yaml(value)}`" for value in row.values)
        lines.append(f"| `{row.name}` | {values} | {row.kind} | {row.comment} |")
    return lines


def readers(stages: Mapping[str, Any], section: str) -> str:
    """The stages of dvc.yaml that declare a section or some of its values."""
    found = []
    for name, body in stages.items():
        keys = {**body, **body.get("do", {})}.get("params", [])
        parts = [f"`{key.partition('.')[2]}`" for key in keys if key.startswith(f"{section}.")]
        if section in keys or parts:
            found.append(f"`{name}`" + (f" ({', '.join(parts)})" if parts else ""))
    return ", ".join(found)


def other_settings(path: Path, group: str) -> list[str]:
    """The values that a file of a group sets in other sections."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    if group not in content:
        return []
    pairs = [
        f"`{section}.{key}={as_yaml(value)}`"
        for section, values in content.items()
        if section != group
        for key, value in values.items()
    ]
    return ["", f"Its file also sets {', '.join(pairs)}."]


def group_page(conf: Path, group: str, rows: list[Parameter], kind: str) -> list[str]:
    """The part of the page on a group; kind: what one of its files is."""
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    lines = ["", f"## {group}", "", f"Read by {readers(stages, group)}."]
    lines += [f"`-S {group}=NAME` takes all values of one {kind} below; `-S {group}.NAME=…`"]
    lines += ["changes one of them."]
    for path in group_files(conf, group):
        own = [row for row in rows if row.section == path.stem]
        lines += ["", f"### {path.stem}", ""]
        lines += table(own, "value") if own else ["No parameters."]
        lines += other_settings(path, group)
    return lines


def page(conf: Path) -> str:
    """The text of docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Generated by `make docs` from the comments in [`conf/`](../conf) and from the types and",
        "ranges that every stage checks: edit those, not this page. To set a value for one run,",
        "use `dvc exp run -S section.parameter=value`; to change it for good, edit",
        "`conf/config.yaml` and run `make params`.",
        "The device (`ADVLOOP_DEVICE`), the number of threads (`OMP_NUM_THREADS`) and the number",
        "of processes (`ADVLOOP_PROCESSES`) are not parameters: they change",
        "rounding alone, but for a GPU, which draws the noise of trainings and previews itself.",
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
    processes = group_parameters(conf, "diffusion", "process", PROCESSES.__getitem__)
    lines += group_page(conf, "diffusion", list(processes), "process")
    objectives = group_parameters(conf, "objective", "name", lambda name: recipe_of(name).params)
    lines += group_page(conf, "objective", list(objectives), "objective")
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
    print_safely()
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        PAGE.write_text(page(REPO / "conf"))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Read a composed params.yaml as Hydra and DVC mean it.

Plain PyYAML reads ``1e-4`` as text and ``2024-01-01`` as a date, and takes the last of two equal
names. OmegaConf does it right, but importing it costs a sixth of a light stage's start.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from advloop.core.errors import UserError

FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?)$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
FLOAT_TAG, DATE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers, dates as text, and no name twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as SafeLoader declares it
        first: [(tag, pattern) for tag, pattern in found if tag not in (FLOAT_TAG, DATE_TAG)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, name in enumerate(names):
            if name in names[:place]:
                first, again = (node.value[k][0].start_mark for k in (names.index(name), place))
                problem = f"{name} is there twice, first in line {first.line + 1}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=again)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(FLOAT_TAG, FLOAT, list("-+0123456789."))


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; UserError, in one line, for anything else.

    A value that was never filled in (``???`` or an interpolation) is refused too: DVC, which does
    not resolve them in params.yaml, would track their text.
    """
    try:
        content = _Loader(path.read_bytes()).get_single_data()
        unfilled = _unfilled(content)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; compose it with `make params`") from None
    except Exception as error:  # PyYAML raises all kinds of errors on bad YAML
        problem = _described(error)
        raise UserError(f"{path}: not valid YAML ({problem}); run `make params`") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a mapping; run `make params`")
    if unfilled is not None:
        name, value = unfilled
        raise UserError(f"{path}: {name}: {value} is a missing value; run `make params`")
    return {str(name): value for name, value in content.items()}


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; ValueError, in one line, if it is none."""
    try:
        return _Loader(path.read_bytes()).get_single_data()
    except Exception as error:  # as above
        raise ValueError(f"not valid YAML ({_described(error)})") from None


def _described(error: Exception) -> str:
    """PyYAML's error in one line of at most 200 characters, with the number of the file's line."""
    text = str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        text = f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(text.split())[:200]


def _unfilled(value: Any, name: str = "") -> tuple[str, str] | None:
    """The first text below ``value`` that stands for another value, and its dotted name."""
    if isinstance(value, str):
        return (name, value) if value == "???" or "${" in value else None
    if isinstance(value, dict):
        parts = [(f"{name}.{key}" if name else str(key), part) for key, part in value.items()]
    else:
        parts = [(name, part) for part in value] if isinstance(value, list) else []
    found = (_unfilled(part, key) for key, part in parts)
    return next((one for one in found if one), None)

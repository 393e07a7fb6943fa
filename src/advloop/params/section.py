"""The base model of every section of params.yaml, and what its fields may be, in words.

A section is a class with one annotated field per parameter. pydantic checks types and ranges;
error messages and docs/parameters.md describe them with the words of ``Rule``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

# A search for pydantic's plugins would read the metadata of every installed package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
# "5" and true are no numbers, 1 is no bool, an int passes for a float, NaN and infinity do not.
STRICT = ConfigDict(strict=True, allow_inf_nan=False, defer_build=True)


class Section(BaseModel):
    """Parameters that belong together; bad values raise ValidationError (a ValueError).

    A default serves code that leaves a value out. params.yaml has to name every field.
    """

    model_config = ConfigDict(**STRICT, frozen=True, extra="forbid")


class Rule(NamedTuple):
    """What one parameter may be.

    kind: ``int``, ``float``, ``str``, ``bool``, or ``list[…]`` of one of these.
    optional: None is allowed. choices: the allowed values as in YAML, or () if any will do.
    bounds: for instance ``at least 1``; in a list they hold for each element.
    """

    kind: str
    optional: bool
    choices: tuple[str, ...]
    bounds: tuple[str, ...]


KINDS = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "greater than", "maximum": "at most"}


def rule_of(schema: Mapping[str, Any]) -> Rule:
    """The rule in pydantic's JSON schema of a field or type."""
    value, *null = schema.get("anyOf", [schema])
    is_list = value["type"] == "array"
    element = dict(value["items"] if is_list else value)
    kind = KINDS[element["type"]]
    if kind == "int" and "exclusiveMinimum" in element:  # "at least 1" reads better
        element["minimum"] = element.pop("exclusiveMinimum") + 1
    choices = value.get("enum", [value["const"]] if "const" in value else [])
    texts = (str(choice).lower() if isinstance(choice, bool) else choice for choice in choices)
    bounds = [f"{words} {element[key]:.12g}" for key, words in BOUNDS.items() if key in element]
    kind = f"list[{kind}]" if is_list else kind
    return Rule(kind, bool(null), tuple(texts), tuple(bounds))


def rules(cls: type[Section]) -> dict[str, Rule]:
    """The rule of each field, by its name."""
    return {name: rule_of(node) for name, node in cls.model_json_schema()["properties"].items()}

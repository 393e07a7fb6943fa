"""Read params.yaml section by section and refuse, in one line, what a run could not mean."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from advloop.core.errors import UserError
from advloop.params.reading import read_mapping
from advloop.params.section import STRICT, Rule, Section, rule_of, rules

S = TypeVar("S", bound=Section)
LONGEST = 200  # characters of a value that a message quotes
RANGE_ERRORS = ("greater_than", "greater_than_equal", "less_than_equal")


class Params:
    """The contents of one params.yaml.

    ``section(name, cls)`` returns a checked instance of ``cls``, ``value(name, kind)`` a checked
    top-level value; both raise UserError. ``used`` holds the values read so far, by name.
    """

    def __init__(self, content: dict[str, Any], path: Path) -> None:
        self.content, self.path = content, path
        self.used: dict[str, Any] = {}

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Params:
        return cls(read_mapping(path), path)

    def fail(self, key: str, value: object, problem: str, option: str = "") -> UserError:
        """The error that says what is wrong with a value, and how to set another.

        option: what `-S` takes, if that is not ``key``.
        """
        text = "null" if value is None else str(value)
        quoted = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        return UserError(
            f"{self.path}: {key}={quoted} {problem}; "
            f"set it in conf/ and run `make params`, or `dvc exp run -S {option or key}=…`"
        )

    def value(self, name: str, kind: Any) -> Any:
        """The top-level value ``name``; kind: a type, or one annotated with constraints."""
        value = self._get(name)
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=STRICT)
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise self.fail(name, value, _problem(error, rule_of(adapter.json_schema()))) from None

    def unchecked(self, name: str) -> dict[str, Any]:
        """The section ``name`` as it stands in the file."""
        content = self._get(name)
        if not isinstance(content, dict):
            raise self.fail(name, content, "must be a section of parameters")
        return content

    def section(self, name: str, cls: type[S]) -> S:
        """The section ``name`` as ``cls``; every field must be there, and nothing else."""
        values = self.unchecked(name)
        known = list(cls.model_fields)
        for key in map(str, values):
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {name}.{close[0]}?" if close else f"known: {', '.join(known)}"
                raise UserError(
                    f"{self.path}: {name}.{key} is not a parameter; {hint}; correct it in conf/ "
                    "if it is there, and run `make params`"
                )
        for key in known:
            if key not in values:
                raise UserError(f"{self.path}: {name}.{key} is missing; run `make params`")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            problem = _problem(error, rules(cls)[key])
            raise self.fail(f"{name}.{key}", values[key], problem) from None

    def everything(self, *but: str) -> dict[str, Any]:
        """All values but ``derived`` and these as plain Python, in the order of the file."""
        return {name: self._get(name) for name in self.content if name not in (*but, "derived")}

    def at(self, key: str) -> Any:
        """The unchecked value at a dotted key (``base.pretrained``); None if there is none."""
        value: Any = self.content
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _get(self, name: str) -> Any:
        if name not in self.content:
            raise UserError(f"{self.path}: {name} is missing; run `make params`")
        self.used[name] = self.content[name]
        return self.content[name]


def _problem(error: ValidationError, rule: Rule) -> str:
    """The first problem in ``error``, in the words of the rule that was broken."""
    first = error.errors()[0]
    if rule.choices:
        several = "one of " if len(rule.choices) > 1 else ""
        return f"must be {several}{', '.join(rule.choices)}"
    if first["type"] in RANGE_ERRORS:
        return f"must be {' and '.join(rule.bounds)}"
    if first["type"] == "finite_number":
        return f"must be {' and '.join(['finite', *rule.bounds])}"
    if first["type"] == "too_short":
        return "must not be empty"
    wanted = f"{rule.kind} | None" if rule.optional else rule.kind
    quoted = ", not str" if isinstance(first["input"], str) else ""  # "5" and 5 look the same
    return f"must be of type {wanted}{quoted}"

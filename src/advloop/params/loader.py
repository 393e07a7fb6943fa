"""Read params.yaml section by section and refuse what a run could not mean."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from advloop.core.errors import UserError

T = TypeVar("T")
LONGEST = 200  # characters of a value that a message shows


def number(
    low: float, high: float = math.inf, *, open_low: bool = False, default: Any = MISSING
) -> Any:
    """Dataclass field that accepts low <= value <= high, or low < value with ``open_low``.

    default: what code may leave out; params.yaml must name every value.
    """
    return field(default=default, metadata={"low": low, "high": high, "open_low": open_low})


def choice(*values: str, default: Any = MISSING) -> Any:
    """Dataclass field that accepts one of ``values``; default: as of ``number``."""
    return field(default=default, metadata={"choices": values})


def _range_error(value: Any, rules: Mapping[str, Any]) -> str | None:
    if "choices" in rules and value not in rules["choices"]:
        return f"must be one of {', '.join(rules['choices'])}"
    if "low" not in rules or value is None:
        return None
    for element in value if isinstance(value, list) else [value]:
        low, high = rules["low"], rules["high"]
        below = element <= low if rules["open_low"] else element < low
        if below or element > high or (isinstance(element, float) and not math.isfinite(element)):
            relation = "greater than" if rules["open_low"] else "at least"
            upper = "" if math.isinf(high) else f" and at most {high:g}"
            return f"must be {relation} {low:g}{upper}"
    return None


class Params:
    """The contents of one params.yaml.

    ``section(name, cls)`` returns a checked instance of the dataclass ``cls``;
    ``value(name, kind)`` a checked top-level scalar. Both raise UserError. ``used`` holds what
    has been read so far, by name.
    """

    def __init__(self, content: DictConfig, path: Path) -> None:
        self.content, self.path = content, path
        self.used: dict[str, Any] = {}

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Params:
        try:
            content = OmegaConf.load(path)
        except FileNotFoundError:
            raise UserError(f"{path}: not found; compose it with `make params`") from None
        except Exception as error:  # YAML can be wrong in any way, and OmegaConf has its own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not valid YAML ({reason}); run `make params`") from None
        if not isinstance(content, DictConfig):
            raise UserError(f"{path}: must hold a mapping; run `make params`")
        for key in content:
            try:
                if OmegaConf.is_config(value := content[key]):
                    OmegaConf.resolve(value)
                str(value)  # what is read here can be shown, in a message too
            except (OmegaConfBaseException, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"{path}: {key!s}: {reason}; run `make params`") from None
        return cls(content, path)

    def fail(self, key: str, value: object, problem: str) -> UserError:
        text = "null" if value is None else str(value)
        shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        return UserError(
            f"{self.path}: {key}={shown} {problem}; "
            f"set it in conf/ and run `make params`, or `dvc exp run -S {key}=…`"
        )

    def _get(self, name: str) -> Any:
        if name not in self.content:
            raise UserError(f"{self.path}: {name} is missing; run `make params`")
        value = self.content[name]
        self.used[name] = self._plain(value)
        return value

    def value(self, name: str, kind: type[T], rules: Mapping[str, Any] | None = None) -> T:
        value = self._get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.fail(name, value, f"must be of type {kind.__name__}")
        if problem := _range_error(value, rules or {}):
            raise self.fail(name, value, problem)
        return value

    def section_node(self, name: str) -> DictConfig:
        node = self._get(name)
        if not isinstance(node, DictConfig):
            raise self.fail(name, node, "must be a section of parameters")
        return node

    def section(self, name: str, cls: type[T]) -> T:
        node = self.section_node(name)
        known = [f.name for f in fields(cast(Any, cls))]
        for key in map(str, node):
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {name}.{close[0]}?" if close else f"known: {', '.join(known)}"
                raise UserError(
                    f"{self.path}: {name}.{key} is not a parameter; {hint}; correct conf/ and run "
                    "`make params`"
                )
        for f in fields(cast(Any, cls)):
            if f.name not in node:
                raise UserError(f"{self.path}: {name}.{f.name} is missing; run `make params`")
            self._check_type(name, f.name, node, cls)
            if problem := _range_error(self._plain(node[f.name]), f.metadata):
                raise self.fail(f"{name}.{f.name}", node[f.name], problem)
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), node)))

    @staticmethod
    def _plain(value: Any) -> Any:
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def _check_type(self, section: str, key: str, node: DictConfig, cls: type) -> None:
        kind = next(str(f.type) for f in fields(cast(Any, cls)) if f.name == key)
        try:
            values = node[key] if isinstance(node[key], ListConfig) else [node[key]]
            found = {type(v) for v in values}
            fits = found == {bool} if kind == "bool" else bool not in found
            if not fits or (str in found and not kind.startswith("str")):
                raise ValidationError  # OmegaConf would read "5" and true as numbers, 1 as true
            if any(OmegaConf.is_config(value) for value in values):
                raise ValidationError  # it would take a list for the number of a list
            OmegaConf.merge(OmegaConf.structured(cls), {key: node[key]})
        except (OmegaConfBaseException, OverflowError):
            raise self.fail(f"{section}.{key}", node[key], f"must be of type {kind}") from None

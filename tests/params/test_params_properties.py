"""Whatever params.yaml holds, it is read as it is or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from properties import bounded, result

from advloop.objectives import objective_names, read_objective, recipe_of
from advloop.params.checks import check_params
from advloop.params.diffusion import PROCESSES, read_diffusion
from advloop.params.loader import Params
from advloop.params.sections import SECTIONS

PARAMS: dict[str, Any] = yaml.safe_load((REPO / "params.yaml").read_text())
PARAMS["derived"] = {}  # which check_config compares as a whole; YAML reads slowly
KEYS = [(name, key) for name, value in PARAMS.items() if isinstance(value, dict) for key in value]
READERS = {"diffusion": read_diffusion, "objective": read_objective}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 2000)
    | st.just(10**400)
    | st.floats()
    | st.binary(max_size=4)
    | st.dates()
    | st.text(max_size=20)
    | st.sampled_from(["???", "${seed}", "${nowhere}", "${oc.env:NONE}", "${", "${a:${b}}"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


def load(path: Path) -> Params:
    params = Params.load(path)
    check_params(params)
    return params


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


@bounded(25)
@given(st.sampled_from([*PARAMS]), VALUES, st.booleans())
def test_any_value_in_place_of_a_section_is_accepted_or_refused_in_one_line(
    folder: Path, name: str, value: Any, remove: bool
) -> None:
    kept = {key: old for key, old in PARAMS.items() if key != name}
    path = write(folder / "params.yaml", kept if remove else kept | {name: value})
    result(lambda: load(path))


@bounded(200)
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_a_parameter_is_accepted_or_refused_in_one_line(
    folder: Path, key: tuple[str, str], value: Any
) -> None:
    section, name = key
    path = write(folder / "one.yaml", {section: PARAMS[section] | {name: value}})

    def read() -> Any:
        params = Params.load(path)
        if section in READERS:
            return READERS[section](params)
        return params.section(section, SECTIONS[section])

    result(read)


@bounded(150)
@given(
    st.binary(max_size=60)
    | st.text(alphabet="ab:-?[]{}&*!|>'\"%@`#, \n\t0", max_size=60).map(str.encode)
    | VALUES.map(lambda value: yaml.safe_dump(value).encode())
)
@example(b"a: !!python/object/apply:os.getcwd []")
@example(b"a: !!timestamp x")
@example(b"a: !!int x")
@example(b"a: 0x" + b"f" * 5000)
@example(b"&a [*a]")
def test_any_bytes_for_params_are_loaded_or_refused_in_one_line(
    folder: Path, content: bytes
) -> None:
    path = folder / "bytes.yaml"
    path.write_bytes(content)
    result(lambda: load(path))


def valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a field of this JSON schema accepts."""
    if "anyOf" in schema:
        return st.one_of(*map(valid, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    most, above = schema.get("maximum"), "exclusiveMinimum" in schema
    texts = st.text(max_size=9).filter(lambda text: "${" not in text and text != "???")
    match schema["type"]:
        case "integer":
            return st.integers(low + 1 if above else low, most)
        case "number":
            return st.floats(low, most, exclude_min=above, allow_nan=False, allow_infinity=False)
        case "array":
            return st.lists(valid(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case kind:
            return {"string": texts, "boolean": st.booleans(), "null": st.none()}[kind]


SECTION_KINDS = {
    **SECTIONS,
    **{f"diffusion {name}": cls for name, cls in PROCESSES.items()},
    **{f"objective {name}": recipe_of(name).params for name in objective_names()},
}


@bounded(15)
@given(st.data())
@pytest.mark.parametrize("name", SECTION_KINDS)
def test_any_valid_section_comes_back_as_it_was_written(
    folder: Path, name: str, data: st.DataObject
) -> None:
    kind = SECTION_KINDS[name]
    parts = {key: valid(node) for key, node in kind.model_json_schema()["properties"].items()}
    values = data.draw(st.fixed_dictionaries(parts))
    path = folder / "section.yaml"
    OmegaConf.save(OmegaConf.create({"section": values}), path)
    assert Params.load(path).section("section", kind).model_dump() == values

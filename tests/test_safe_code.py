"""What the code and DVC's configuration never do: run a shell, execute input, hold a secret."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_files import param
from conftest import REPO
from stage_folder import StageFolder

from hydra_plugins.advloop_derived import derive

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

# --- The code ---

CODE = [
    p for place in ("src", "stages", "benchmarks", "data") for p in (REPO / place).rglob("*.py")
]
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN |= {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
FORBIDDEN |= {
    f"{m}.{f}" for m in ("pickle", "marshal", "dill", "joblib") for f in ("load", "loads")
}
FORBIDDEN |= {"pickle.Unpickler", "pd.read_pickle", "pandas.read_pickle", "shelve.open"}
FLAGS = ("shell", "allow_pickle", "trust_remote_code")
TENSORS_ONLY = ("torch.load", "torch.hub.load_state_dict_from_url")


def offences(source: str) -> list[str]:
    """Calls that would run a shell, or execute what they read."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {k.arg: getattr(k.value, "value", k.value) for k in call.keywords}
        bad = name in FORBIDDEN or any(given.get(flag, False) is not False for flag in FLAGS)
        if bad or (name in TENSORS_ONLY and given.get("weights_only") is not True):
            found.append(ast.unparse(call))
    return found


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(REPO).as_posix())
def test_code_runs_no_shell_and_executes_nothing_that_it_reads(path: Path) -> None:
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.hub.load_state_dict_from_url(address)",
        "pickle.load(file)",
        "yaml.load(text, yaml.SafeLoader)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=flag)",
        "np.load(path, allow_pickle=True)",
        "os.system(command)",
    ],
)
def test_what_would_execute_is_found(source: str) -> None:
    assert offences(source) == [source]


def test_model_in_evaluation_mode_is_no_offence() -> None:
    assert offences("model.eval(); torch.load(path, weights_only=True); yaml.safe_load(text)") == []


# --- DVC's configuration, which is in git ---

SECRET = re.compile(
    r"(key|secret|token|password|passphrase|credential|connection_string|auth_header|service_account|sas_)"
)
USER_AND_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def secrets(text: str) -> list[str]:
    """Options of a DVC configuration that hold a secret, or say where one lies."""
    content = configparser.ConfigParser(interpolation=None)
    content.read_string(text)
    options = [(name, value) for part in content.values() for name, value in part.items()]
    return [n for n, v in options if SECRET.search(n.lower()) or USER_AND_PASSWORD.search(v)]


def test_configuration_of_dvc_in_git_holds_no_secret() -> None:
    assert secrets((REPO / ".dvc/config").read_text()) == []
    assert "/config.local" in (REPO / ".dvc/.gitignore").read_text().split()


@pytest.mark.parametrize(
    "line",
    [
        "access_key_id = A",
        "secret_access_key = A",
        "SESSION_TOKEN = A",
        "password = A",
        "ask_password = true",
        "token = A",
        "bearer_token_command = A",
        "sas_token = A",
        "connection_string = A",
        "account_key = A",
        "client_secret = A",
        "oss_key_id = A",
        "keyfile = A",
        "credentialpath = A",
        "gdrive_service_account_json_file_path = A",
        "custom_auth_header = A",
        "url = ssh://user:word@example.invalid/storage",
    ],
)
def test_secret_in_the_configuration_is_found(line: str) -> None:
    assert secrets(f"[core]\n    remote = r\n['remote \"r\"']\n    {line}\n") == [
        line.split(" = ")[0].lower()
    ]


def test_address_with_a_user_alone_is_no_secret() -> None:
    assert secrets("['remote \"r\"']\nurl = ssh://user@example.invalid:22/a\n") == []


# --- What of params.yaml reaches a shell ---

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
HARMLESS = re.compile(r"[A-Za-z0-9_./-]+")  # to a shell, in any place
PATHS = {"data.source", "derived.autoencoder_source", "derived.base_source"}


def interpolations(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(kind of place, parameter) of every ``${…}`` below a stage: ``cmd``, ``deps``, ``outs``…"""
    if isinstance(node, dict):
        for key, value in node.items():
            within = place if place or key == "do" else key
            yield from interpolations(key, place)
            yield from interpolations(value, within)
    elif isinstance(node, list):
        for value in node:
            yield from interpolations(value, place)
    elif isinstance(node, str):
        yield from ((place, name) for name in re.findall(r"\$\{(.*?)\}", node))


FOUND = {pair for body in STAGES.values() for pair in interpolations(body)}


def test_path_that_a_user_names_is_a_dependency_and_stands_in_no_command() -> None:
    assert {place for place, name in FOUND if name in PATHS} == {"deps"}
    assert {name for _, name in FOUND} >= PATHS


def test_name_of_the_experiment_stands_in_outputs_alone() -> None:
    assert {place for place, name in FOUND if name == "exp_name"} == {"outs"}


def test_every_value_in_a_command_follows_from_whole_numbers() -> None:
    structure = {"key", "item", "item.iteration", "item.epoch", "derived.last"}
    assert {name for place, name in FOUND if place == "cmd"} <= structure
    walked = {name for place, name in FOUND if place in ("foreach", "matrix")}
    assert walked == {f"derived.{n}" for n in ("iterations", "replays", "indices", "sample_epochs")}
    for name, folder in product(("plans", "A-b_c.9"), ("a; touch b", "$(touch b)", None)):
        made = derive(name, 12, 1000, 7, folder, folder)
        values = [*made["iterations"], *made["iterations"].values(), *made["replays"].values()]
        values += [made["last"], *map(str, made["indices"]), *made["sample_epochs"]]
        assert [value for value in values if not HARMLESS.fullmatch(value)] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("derived.last", "iter_1; touch b"),
        ("derived.iterations", {"0": "base", "1": "iter_0 && touch b"}),
        ("derived.iterations", {"0; touch b": "base", "1": "iter_0"}),
        ("derived.replays", {"0": "outputs/config.ok", "1": "$(touch b)"}),
        ("derived.indices", [0, "1; touch b"]),
        ("derived.sample_epochs", ["`touch b`"]),
        ("exp_name", "a;touch b"),
        ("exp_name", "a'b"),
        ("exp_name", "a b"),
    ],
)
def test_value_that_a_shell_would_read_is_refused(
    stages: StageFolder, key: str, value: Any
) -> None:
    param(key, value)(stages.root)
    outcome = stages.run("check_config")
    assert outcome.status == 1
    assert key in outcome.err
    assert stages.made() == {}


def paths(stage: str, kind: str) -> set[str]:
    """Dependencies or outputs of a stage, ``*`` where a parameter stands."""
    body = STAGES[stage].get("do", STAGES[stage])
    kinds = ("outs", "metrics", "plots") if kind == "outs" else (kind,)
    entries = [entry for name in kinds for entry in body.get(name, [])]
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    return {re.sub(r"\$\{.*?\}", "*", name) for name in names}


def test_every_stage_waits_for_check_config() -> None:
    waiting, made = set(STAGES) - {"check_config"}, paths("check_config", "outs")
    while waiting:
        ready = {
            stage
            for stage in waiting
            for dep, out in product(paths(stage, "deps"), made)
            if fnmatchcase(out, dep) or dep.startswith(f"{out}/")
        }
        assert ready, f"{waiting} depend on nothing that check_config comes before"
        waiting -= ready
        made |= {path for stage in ready for path in paths(stage, "outs")}

"""The code runs no shell and executes no input, and DVC's configuration holds no secret."""

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
def test_code_runs_no_shell_and_executes_nothing_that_it_reads(path: Path):
    assert offences(path.read_text()) == []


EXECUTING = """
torch.load(path)
torch.load(path, weights_only=False)
torch.load(path, weights_only=flag)
torch.hub.load_state_dict_from_url(address)
pickle.load(file)
yaml.load(text, yaml.SafeLoader)
eval(text)
subprocess.run(command, shell=True)
subprocess.run(command, shell=flag)
np.load(path, allow_pickle=True)
os.system(command)
"""


def test_calls_that_would_execute_are_found_and_safe_ones_are_not():
    assert offences(EXECUTING) == EXECUTING.split("\n")[1:-1]
    safe = "model.eval(); torch.load(path, weights_only=True); yaml.safe_load(text)"
    assert offences(safe) == []


# --- DVC's configuration, which is in git ---

SECRET = re.compile(
    r"(key|secret|token|password|passphrase|credential|connection_string|auth_header|service_account|sas_)"
)
USER_AND_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def secrets(text: str) -> list[str]:
    """The options of a DVC configuration that hold a secret, or say where one is."""
    content = configparser.ConfigParser(interpolation=None)
    content.read_string(text)
    options = [(name, value) for part in content.values() for name, value in part.items()]
    return [n for n, v in options if SECRET.search(n.lower()) or USER_AND_PASSWORD.search(v)]


def test_configuration_of_dvc_in_git_holds_no_secret():
    assert secrets((REPO / ".dvc/config").read_text()) == []
    assert "/config.local" in (REPO / ".dvc/.gitignore").read_text().split()


SECRETS = """
access_key_id secret_access_key SESSION_TOKEN password ask_password token bearer_token_command
sas_token connection_string account_key client_secret oss_key_id keyfile credentialpath
gdrive_service_account_json_file_path custom_auth_header
"""


def test_secrets_in_a_configuration_are_found_and_a_user_name_is_none():
    lines = [f"    {name} = A\n" for name in SECRETS.split()]
    assert secrets("[remote]\n" + "".join(lines)) == SECRETS.lower().split()
    assert secrets("[remote]\nurl = ssh://user:word@example.invalid/storage\n") == ["url"]
    assert secrets("[remote]\nurl = ssh://user@example.invalid:22/a\n") == []


# --- The values of params.yaml that reach a shell ---

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
HARMLESS = re.compile(r"[A-Za-z0-9_./-]+")  # to a shell, wherever it stands
SOURCES = ("autoencoder_source", "base_source", "feature_source", "text_source")
PATHS = {"data.source", "item.folder", *(f"derived.{name}" for name in SOURCES)}


def interpolations(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(key, parameter) of every ``${…}`` in a stage; the key is ``cmd``, ``deps``, ``outs``…"""
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


def test_paths_of_the_user_are_dependencies_and_nothing_of_the_user_is_in_a_command():
    assert {name for _, name in FOUND} >= PATHS
    assert {place for place, name in FOUND if name in PATHS} == {"deps"}
    assert "exp_name" not in {name for _, name in FOUND}


def test_every_value_in_a_command_follows_from_whole_numbers_and_switches():
    structure = {"key", "item.model", "item.fakes_options", "item.discriminator_option"}
    structure |= {"derived.captions_option"}
    assert {name for place, name in FOUND if place == "cmd"} == structure
    walked = {name for place, name in FOUND if place in ("foreach", "matrix")}
    assert walked == {"derived.iterations", "derived.predictions", "derived.text_encoders"}
    for switch, folder in product((True, False, "a; b"), ("a; touch b", "$(touch b)", None)):
        made = derive("plans", 12, switch, switch, switch, folder, folder, folder, folder)
        items = made["iterations"] | made["predictions"]
        values = [*items, *(value for item in items.values() for value in item.values())]
        values += [*made["text_encoders"], made["captions_option"]]
        words = [word for value in values for word in value.split(" ") if word]
        assert [word for word in words if not HARMLESS.fullmatch(word)] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("derived.iterations.0.model", "iter_0 && touch b"),
        ("derived.iterations.1.discriminator_option", "; touch b"),
        ("derived.iterations.1.fakes_options", "$(touch b)"),
        ("derived.iterations", {"0; touch b": {}}),
        ("derived.predictions", {"`touch b`": {}}),
        ("exp_name", "a;touch b"),
        ("exp_name", "a'b"),
        ("exp_name", "a b"),
    ],
)
def test_value_that_a_shell_would_read_is_refused(stages: StageFolder, key: str, value: Any):
    param(key, value)(stages.root)
    outcome = stages.run("check_config")
    assert outcome.status == 1
    assert ".".join(key.split(".")[:2]) in outcome.err
    assert stages.made() == {}


def paths(stage: str, kind: str) -> set[str]:
    """The dependencies or outputs of a stage, with ``*`` for each parameter."""
    body = STAGES[stage].get("do", STAGES[stage])
    kinds = ("outs", "metrics", "plots") if kind == "outs" else (kind,)
    entries = [entry for name in kinds for entry in body.get(name, [])]
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    return {re.sub(r"\$\{.*?\}", "*", name) for name in names}


def test_every_stage_waits_for_check_config():
    waiting, made = set(STAGES) - {"check_config"}, paths("check_config", "outs")
    while waiting:
        ready = {
            stage
            for stage in waiting
            for dep, out in product(paths(stage, "deps"), made)
            if fnmatchcase(out, dep) or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
        }
        assert ready, f"{waiting} depend on nothing that check_config comes before"
        waiting -= ready
        made |= {path for stage in ready for path in paths(stage, "outs")}

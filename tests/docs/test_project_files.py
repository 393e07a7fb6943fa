"""Files that other tools read: they run what the project's own commands run, and agree."""

from __future__ import annotations

import json
import re
import tomllib

import yaml
from conftest import REPO, commit, git, new_repository, snapshot

MAKEFILE = (REPO / "Makefile").read_text()
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def recipe(target: str) -> list[str]:
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert found, target
    return [line.strip() for line in found[1].splitlines()]


def test_make_help_lists_every_target():
    for target in re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split():
        assert re.search(rf"^{target}:.*## ", MAKEFILE, re.M), target


def test_workflow_runs_what_a_submission_must_pass():
    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == "bash .ci/run"
    assert all((REPO / command.split()[1]).is_file() for command in commands)
    assert workflow["permissions"] == {"contents": "read"}
    run = (REPO / ".ci/run").read_text()
    assert re.findall(r"^make (\w+)$", run, re.M) == ["lint", "test", "demo"]


def test_hooks_are_local_and_run_what_make_lint_runs():
    (source,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    assert source["repo"] == "local"
    entries = {hook["id"]: hook["entry"] for hook in source["hooks"]}
    assert entries.pop("parameters").removeprefix(".venv/bin/") in recipe("docs")
    short = [e.removeprefix(".venv/bin/").replace(" --force-exclude", "") for e in entries.values()]
    assert short == [c.removesuffix(" .") for c in recipe("lint")]


def test_dev_container_sets_the_project_up_with_its_interpreter_and_dvc():
    content = json.loads((REPO / ".devcontainer/devcontainer.json").read_text())
    for command in content["postCreateCommand"].split(" && "):
        assert re.search(rf"^{command.removeprefix('make ')}:", MAKEFILE, re.M), command
    editor = content["customizations"]["vscode"]
    assert "Iterative.dvc" in editor["extensions"]
    assert editor["settings"]["python.defaultInterpreterPath"].endswith("/.venv/bin/python")
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert content["image"].rpartition(":")[2] in ("3.11", "3.12", "3.13")


def test_version_and_date_agree_in_every_file():
    changelog = (REPO / "CHANGELOG.md").read_text()
    version, date = re.search(
        r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.M
    ).groups()
    assert PROJECT["version"] == version
    packages = tomllib.loads((REPO / "uv.lock").read_text())["package"]
    assert [p["version"] for p in packages if p["name"] == "advloop"] == [version]
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert (citation["version"], citation["date-released"]) == (version, date)
    assert citation["license"] == "MIT"


def test_clone_of_git_for_windows_has_the_same_bytes(tmp_path):
    project, files = (
        tmp_path / "project",
        {".gitattributes": (REPO / ".gitattributes").read_bytes()},
    )
    files |= dict.fromkeys(("run", ".dvc/config", "dvc.lock", "conf/a.yaml", "b.csv"), b"1\n2\n")
    files["data/a.zip"] = b"PK\0\r\n\n\r\n"
    for name, content in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(content)
    new_repository(project)
    commit(project, "Start")
    windows = ("-c", "core.autocrlf=true")
    git(project, *windows, "clone", "--quiet", str(project), str(tmp_path / "clone"))
    found = snapshot(tmp_path / "clone")
    assert {name: found[name] for name in files} == files

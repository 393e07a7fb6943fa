"""Facts of the files that other tools read: they run what the project's own commands run."""

from __future__ import annotations

import json
import re
import tomllib

import yaml
from conftest import REPO

MAKEFILE = (REPO / "Makefile").read_text()


def recipe(target: str) -> list[str]:
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert found, target
    return [line.strip() for line in found[1].splitlines()]


def test_workflow_runs_what_a_submission_must_pass() -> None:
    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == "bash .ci/run"
    assert all((REPO / command.split()[1]).is_file() for command in commands)
    assert workflow["permissions"] == {"contents": "read"}
    text = (REPO / ".ci/run").read_text()
    assert [f"make {t}" in text for t in ("lint", "test", "demo")] == [True] * 3


def test_hooks_are_local_and_run_what_make_lint_runs() -> None:
    (source,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    assert source["repo"] == "local"
    entries = {hook["id"]: hook["entry"] for hook in source["hooks"]}
    parameters = entries.pop("parameters")
    assert parameters.removeprefix(".venv/bin/") in recipe("docs")
    short = [e.removeprefix(".venv/bin/").replace(" --force-exclude", "") for e in entries.values()]
    assert short == [c.removesuffix(" .") for c in recipe("lint")]


def test_dev_container_sets_the_project_up_with_its_interpreter_and_dvc() -> None:
    content = json.loads((REPO / ".devcontainer/devcontainer.json").read_text())
    for command in content["postCreateCommand"].split(" && "):
        assert re.search(rf"^{command.removeprefix('make ')}:", MAKEFILE, re.M), command
    editor = content["customizations"]["vscode"]
    assert "Iterative.dvc" in editor["extensions"]
    assert editor["settings"]["python.defaultInterpreterPath"].endswith("/.venv/bin/python")
    python = content["image"].rpartition(":")[2]
    asked = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["requires-python"]
    assert asked == ">=3.11,<3.14"
    assert python in ("3.11", "3.12", "3.13")


def released() -> tuple[str, str]:
    """Version and date of the newest release in CHANGELOG.md."""
    text = (REPO / "CHANGELOG.md").read_text()
    found = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text, re.M)
    assert found
    return found[1], found[2]


def test_installed_version_is_the_newest_of_the_changelog() -> None:
    version, _ = released()
    assert tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"] == version
    packages = tomllib.loads((REPO / "uv.lock").read_text())["package"]
    assert [p["version"] for p in packages if p["name"] == "advloop"] == [version]


def test_citation_names_the_software_and_invents_nothing() -> None:
    text = (REPO / "CITATION.cff").read_text()
    content = yaml.safe_load(text)
    assert content["title"].startswith("advloop: ")
    assert content["license"] == "MIT"
    assert content["authors"] == [{"name": "The advloop authors"}]
    assert not re.search(r"doi|https?://", text)
    version, date = released()
    assert content["version"] == version
    assert content["date-released"] == date


def test_changelog_names_files_and_commands_that_exist() -> None:
    text = (REPO / "CHANGELOG.md").read_text()
    for target in re.findall(r"`make (\w+)`", text):
        assert recipe(target)
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    named = re.search(r"as a DVC graph: (.*?)\.", text, re.S)
    assert named
    assert set(re.findall(r"`(\w+)`", named[1])) <= set(stages)
    objectives = re.search(r"the objectives (.*?)\.", text, re.S)
    assert objectives
    have = {path.stem for path in (REPO / "conf/objective").glob("*.yaml")}
    assert set(re.findall(r"`(\w+)`", objectives[1])) == have

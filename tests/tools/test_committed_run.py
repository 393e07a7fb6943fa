"""The end of `make demo`: what differs from the committed run, by how much, how to restore it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPO, commit, git, new_repository

import committed_run

SCORES = {"held_out": {"base": {"kid": 300.0, "kid_ci95": 20.0}}, "change": -0.5, "rounds": 2}


def write(project: Path, scores: object, params: str = "seed: 0\n", lock: str = "1\n") -> None:
    (project / "reports").mkdir(parents=True, exist_ok=True)
    (project / "reports/metrics.json").write_text(json.dumps(scores))
    (project / "params.yaml").write_text(params)
    (project / "dvc.lock").write_text(lock)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    new_repository(tmp_path)
    write(tmp_path, SCORES)
    commit(tmp_path, "Run")
    return tmp_path


def with_kid(value: float) -> dict[str, object]:
    return SCORES | {"held_out": {"base": {"kid": value, "kid_ci95": 20.1}}}


def test_equal_run_is_said_to_be_equal(project: Path) -> None:
    assert committed_run.report(project) == ["The run is the committed one, byte for byte."]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (with_kid(303), "1 of 3 figures differ from the committed run, all within what rounding"),
        (with_kid(303), "; most: held_out.base.kid is 303 instead of 300, ± 20."),
        (with_kid(310), "1 of 3 figures differ from the committed run, 1 figure by more than"),
        (with_kid(303) | {"change": -0.6}, "2 of 3 figures differ"),
        (with_kid(303) | {"change": -0.6}, "most: change is -0.6 instead of -0.5."),
        (SCORES | {"rounds": 3}, "most: rounds is 3 instead of 2."),
        (SCORES | {"more": 1}, "1 figure of one run alone, more first."),
        (SCORES, "All figures are those of the committed run."),
    ],
)
def test_other_figures_are_named_with_the_size_of_the_difference(
    project: Path, scores: object, said: str
) -> None:
    write(project, scores, lock="2\n")
    first, last = committed_run.report(project)
    assert said in first
    assert "dvc.lock" in last
    restore = last.partition("to restore: `")[2].rstrip("`")
    git(project, *restore.split()[1:])
    assert committed_run.report(project) == ["The run is the committed one, byte for byte."]


def test_other_parameters_are_said_to_be_the_reason(project: Path) -> None:
    write(project, with_kid(1), params="seed: 1\n", lock="2\n")
    assert committed_run.report(project)[0].startswith("The parameters are not those")


def test_nothing_is_said_without_a_repository_or_a_committed_run(
    tmp_path: Path, project: Path
) -> None:
    git(project, "rm", "--quiet", "--cached", "reports/metrics.json")
    git(project, "commit", "--quiet", "--message", "No run")
    assert committed_run.report(project) == []
    lonely = tmp_path.parent / "lonely"
    write(lonely, SCORES)
    assert committed_run.report(lonely) == []


def test_demo_ends_with_it() -> None:
    demo = (REPO / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
    assert demo.splitlines()[-1].strip() == "@python tools/committed_run.py"

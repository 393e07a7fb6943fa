"""`make compare` with fake stages: it finishes, goes on after a kill, and says what failed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import REPO, Finished, command, commit, copy_of, dvc, environment, fail_at, git
from warm_python import CLIENT

import compare
from advloop.core.errors import UserError
from advloop.core.files import read_json
from advloop.objectives import seed as seed_module
from cells import Arm, arms_of, cell
from compare import settings_of
from experiments import experiments
from project import read_state, remember
from results import PAGE, RESULTS, rendered
from workspace import check_clean, newest_stash, queueing, restore_workspace

OBJECTIVES = sorted(path.stem for path in (REPO / "conf/objective").glob("*.yaml"))
CALL = ("benchmarks/compare/compare.py", "--objectives", "none,seed")
SETTINGS = ("train_diffusion.learning_rate=1.0e-4", "train_diffusion.batch_size=16")
PLAN = {
    "seeds": [0],
    "settings": [SETTINGS[0]],
    "objectives": {"none": [SETTINGS[1]], "seed": None},
}
NONE = Arm("none", "none", None, 3, SETTINGS)
pytestmark = pytest.mark.xdist_group("compare")


@pytest.fixture(scope="module")
def project(finished_round: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of fake stages with what `make compare` needs; the tests go on from one another."""
    project = copy_of(finished_round.project, tmp_path_factory.mktemp("compare") / "fakes")
    for source in (*REPO.glob("benchmarks/compare/*.*"), REPO / "docs/tried.md"):
        target = project / source.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (project / "benchmarks/compare/plan.yaml").write_text(yaml.safe_dump(PLAN))
    graph = project / "dvc.yaml"  # a cell begins with its round: the rest would only take time
    before = "prepare|train_autoencoder|encode_dataset|train_base|evaluate_base"
    graph.write_text(
        re.sub(rf"^  ({before}):$", r"  \1:\n    frozen: true", graph.read_text(), flags=re.M)
    )
    commit(project, "Compare")
    yield project
    dvc(project, "queue", "stop", "--kill")


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let this process's own modules and DVC work in a project."""

    def enter(project: Path) -> None:
        monkeypatch.setattr("project.ROOT", project)
        for name, value in environment(project).items():
            monkeypatch.setenv(name, value)

    return enter


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return command(project, *CLIENT, *CALL, *options)


def finished(project: Path) -> dict[str, str]:
    """Commits of the finished cells by arm and seed, by git alone."""
    listed = git(project, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    found = re.findall(r"^(\w+) refs/exps/../\w{38}/compare-(\w+-\d)-[0-9a-f]{8}$", listed, re.M)
    return {name: commit for commit, name in found}


def tasks_started(project: Path) -> int:
    return len(list((project / ".dvc/tmp/exps/run").glob("*/*.pid")))


def queued(result: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^queued compare-(\w+-\d)-", result.stdout, re.M))


def queue_halfway(project: Path) -> None:
    """What `dvc exp run --queue` does first, and does not undo if it is killed."""
    git(project, "stash", "--quiet")
    git(project, "checkout", "--quiet", "--detach")
    (project / "params.yaml").write_text("seed: 7\n")
    git(project, "add", "params.yaml")


def assert_as_it_was(project: Path) -> None:
    check_clean()
    assert git(project, "symbolic-ref", "HEAD").strip() == "refs/heads/main"
    assert "Not committed." in (project / "docs/tried.md").read_text()


def test_changed_code_is_refused_and_changed_docs_are_not(project):
    script = project / "stages/report.py"
    before = script.read_text()
    script.write_text(before + "\n")
    with (project / "docs/tried.md").open("a") as file:
        file.write("\nA dead end.\n")
    done = run(project)
    script.write_text(before)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("error: uncommitted changes in stages/report.py")
    assert finished(project) == {}


def test_after_a_kill_of_everything_it_goes_on_with_the_unfinished_cells(project):
    first = subprocess.Popen(
        [sys.executable, *CALL, "--seeds", "0,1"],
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while tasks_started(project) < 2:  # the second cell runs
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.2)
    worker = int((project / ".dvc/tmp/exps/celery/dvc-exp-worker-1.pid").read_text())
    group = os.getpgid(worker)
    first.kill()
    first.wait()
    os.killpg(group, signal.SIGKILL)  # the worker, DVC's run of the cell, and its stage
    before = finished(project)
    assert len(before) == 1

    second = run(project, "--seeds", "0,1")
    assert second.returncode == 0, second.stdout
    assert "4 cells, 1 finished" in second.stdout
    after = finished(project)
    assert set(after) == {"none-0", "none-1", "seed-0", "seed-1"}
    assert before.items() <= after.items()  # the same commit: not made again
    assert len(queued(second)) == 1  # the killed one; two were still in the queue
    assert not [p for p in (project / ".dvc/tmp/exps").iterdir() if p.name.startswith("tmp")]


def test_results_are_those_of_the_experiments(project):
    results = read_json(project / RESULTS)
    assert results["seeds"] == [0, 1]
    for arm, runs in results["cells"].items():
        for seed, found in runs.items():
            shown = git(
                project, "show", f"{finished(project)[f'{arm}-{seed}']}:reports/metrics.json"
            )
            kid = found["rows"]["iter_0"]["kid_lite0"]
            assert f'"iter_0": {{"kid_lite0": {kid}}}' in shown
    seconds = [found["seconds"] for runs in results["cells"].values() for found in runs.values()]
    assert seconds.count(None) == 1  # the killed one
    assert all(0 < value < 300 for value in seconds if value is not None)
    text = (project / PAGE).read_text()
    assert "No cell is missing." in text
    assert "A dead end." in text
    assert "](results/none.png)" in text
    assert text == rendered(project)


def test_second_run_runs_nothing_and_commits_of_other_files_do_not_matter(project):
    commit(project, "Results")
    before = finished(project), tasks_started(project)
    done = run(project, "--seeds", "0,1")
    assert done.returncode == 0
    assert "4 cells, 4 finished" in done.stdout
    assert (finished(project), tasks_started(project)) == before
    assert git(project, "diff", "--stat", "HEAD", "--", ".", ":!docs") == ""


def test_experiments_are_found_whatever_commit_they_started_from_and_the_newest_of_a_name(
    project, enter
):
    enter(project)
    (name,) = (name for name in experiments() if name.startswith("compare-none-0-"))
    found = experiments()[name]
    assert found.commit == finished(project)["none-0"]
    assert found.ended == int(git(project, "show", "-s", "--format=%ct", found.commit))
    ref = f"refs/exps/00/{'0' * 38}/{name}"
    git(project, "update-ref", ref, "HEAD")
    assert experiments()[name].commit == git(project, "rev-parse", "HEAD").strip()
    git(project, "update-ref", "-d", ref)


def test_failed_cell_is_named_and_tried_again(project):
    fail_at(project, "train_diffusion@0")
    done = run(project, "--seeds", "0,1,2", "--objectives", "none")
    fail_at(project)
    assert done.returncode == 1
    assert queued(done) == {"none-2"}
    line = next(line for line in done.stdout.splitlines() if line.startswith("error: "))
    assert re.fullmatch(
        r"error: (compare-none-2-\w{8}) failed; `dvc queue logs \1` shows its log", line
    )
    text = (project / PAGE).read_text()
    assert "left out: `none` of seed 2.**" in text
    assert "| `none` (2 of 3 seeds) |" in text
    again = run(project, "--seeds", "0,1,2", "--objectives", "none")
    assert again.returncode == 0, again.stdout
    assert queued(again) == {"none-2"}
    assert "No cell is missing." in (project / PAGE).read_text()


def test_page_alone_follows_the_text_and_needs_no_queue(project):
    (project / "docs/tried.md").write_text("# Title\n\nAnother dead end.\n")
    before = tasks_started(project)
    done = run(project, "--report-only")
    assert done.returncode == 0, done.stdout
    assert "Another dead end." in (project / PAGE).read_text()
    assert tasks_started(project) == before


def test_workspace_that_a_killed_queueing_left_is_put_back(project, enter):
    enter(project)
    commit(project, "Text")
    (project / "docs/tried.md").write_text("# Title\n\nNot committed.\n")
    remember(queueing={"branch": "refs/heads/main", "stash": newest_stash()})
    queue_halfway(project)
    with pytest.raises(UserError, match=r"uncommitted changes in params\.yaml"):
        check_clean()
    restore_workspace()
    assert_as_it_was(project)
    assert read_state()["queueing"] is None


# --- Which experiment is a cell's ---


def test_name_changes_with_what_the_scores_follow_from_and_with_nothing_else(fakes, enter):
    enter(fakes)
    name = cell(NONE, 0).name
    assert re.fullmatch(r"compare-none-0-[0-9a-f]{8}", name)
    assert cell(NONE, 1).name.startswith("compare-none-1-")
    (fakes / "README.md").write_text("# Words\n")
    (fakes / "conf/objective/other.yaml").write_text("name: other\nweight: 1.0\n")
    (fakes / "src/advloop/of_no_stage.py").write_text("\n")
    commit(fakes, "What no score follows from")
    assert cell(NONE, 0).name == name
    others = {name, cell(replace(NONE, epochs=9), 0).name}
    for path in ("src/advloop/evaluation/kid.py", "dvc.yaml", "images/group_00/0.png"):
        with (fakes / path).open("a") as file:
            file.write("\n")
        commit(fakes, path)
        others.add(cell(NONE, 0).name)
    config = fakes / "conf/config.yaml"
    config.write_text(config.read_text().replace("val_fraction: 0.2", "val_fraction: 0.3"))
    others.add(cell(NONE, 0).name)
    assert len(others) == 6


def test_control_of_equal_compute_is_added_if_an_objective_costs_more(fakes, enter, monkeypatch):
    enter(fakes)
    assert [arm.name for arm in arms_of(["none", "seed"])] == ["none", "seed"]
    monkeypatch.setattr(seed_module, "RECIPE", replace(seed_module.RECIPE, evaluations=8))
    control = arms_of(["none", "seed"], {"none": ["evaluate.num_seeds=4"]})[-1]
    # TINY trains 2 epochs: 2 * 8 / 3 = 5.33
    assert control == Arm("none_equal_compute", "none", 6, 3, ("evaluate.num_seeds=4",))
    overrides = ["objective=none", "seed=4", "evaluate.num_seeds=4", "train_diffusion.epochs=6"]
    assert control.overrides(4) == overrides


def test_objectives_that_train_on_more_latents_cost_more(fakes, enter):
    enter(fakes)
    settings = {"seed": ["train_diffusion.samples_per_epoch=64", "train_diffusion.epochs=3"]}
    control = arms_of(["none", "seed"], settings)[-1]
    assert (control.name, control.epochs) == ("none_equal_compute", 6)  # 3 epochs twice as long


def test_equal_compute_needs_epochs_of_known_length_in_all_arms(fakes, enter):
    enter(fakes)
    settings = {"seed": ["train_diffusion.samples_per_epoch=null"]}
    with pytest.raises(UserError, match=r"seed: train_diffusion\.samples_per_epoch is null, but"):
        arms_of(["none", "seed"], settings)


def test_settings_of_the_plan_are_those_of_all_and_of_the_objective(monkeypatch):
    monkeypatch.setattr(compare, "PLAN", PLAN)
    assert settings_of(["none", "seed", "ddo"]) == {
        "none": list(SETTINGS),
        "seed": [SETTINGS[0]],
        "ddo": [SETTINGS[0]],
    }


# --- One call, with a queue that does nothing ---


@pytest.fixture
def call(fakes: Path, enter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Call main; the parts of the queue are those of the arguments, or do nothing."""
    (fakes / "docs").mkdir()
    (fakes / "docs/tried.md").write_text("# Title\n")
    commit(fakes, "Docs")
    enter(fakes)
    monkeypatch.setattr(compare, "PLAN", PLAN)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--objectives", "none", "--seeds", "0"])

    def main(**functions: Callable[..., object]) -> int:
        for name in ("settle", "enqueue", "start_worker", "wait", "stop"):
            monkeypatch.setattr(compare, name, functions.get(name, lambda *_: {}))
        return compare.main()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield main
    for number, handler in before.items():
        signal.signal(number, handler)


def test_interrupted_queueing_leaves_the_workspace_as_it_was(fakes, call):
    (fakes / "docs/tried.md").write_text("# Title\n\nNot committed.\n")

    def enqueue(_: object) -> None:
        with queueing():
            queue_halfway(fakes)
            raise KeyboardInterrupt

    assert call(enqueue=enqueue) == 130
    assert_as_it_was(fakes)


def test_results_name_the_commit_that_was_there_when_the_cells_were_queued(fakes, call):
    head = git(fakes, "rev-parse", "--short=10", "HEAD").strip()
    name = cell(NONE, 0).name

    def wait(_: object) -> list[str]:
        git(fakes, "update-ref", f"refs/exps/00/{'0' * 38}/{name}", "HEAD")
        config = fakes / "conf/scale/tiny.yaml"
        config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
        commit(fakes, "Meanwhile")
        return []

    assert call(wait=wait) == 0
    results = read_json(fakes / RESULTS)
    assert list(results["cells"]["none"]) == ["0"]
    assert results["commit"] == head
    assert results["arms"]["none"]["epochs"] == 2


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--objectives", "none,x", f"no x in conf/objective/ ({', '.join(OBJECTIVES)})"),
        ("--objectives", "seed", "needs none"),
        ("--seeds", "0;1", "must be whole numbers"),
    ],
)
def test_bad_option_is_one_line(call, monkeypatch, capsys, option, value, reason):
    monkeypatch.setattr("sys.argv", ["compare.py", option, value])
    assert call() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line

"""Facts of dvc.yaml: what each stage declares, and what DVC then decides to run."""

from __future__ import annotations

import ast
import re
import resource
import statistics
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import (
    BIN,
    REPO,
    Finished,
    command,
    commit,
    compose,
    dvc,
    environment,
    fail_at,
    git,
    must,
    ran,
    snapshot,
    stages_run,
)
from warm_python import CLIENT

from advloop.params.run import VALUES
from advloop.params.sections import SECTIONS
from kills import torn_file

STAGES: dict[str, dict[str, Any]] = {
    name: {**body.get("do", body)}
    for name, body in yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"].items()
}
LIBRARY = REPO / "src/advloop"
MODULES = sorted(LIBRARY.rglob("*.py"))
ROOTS = (REPO / "stages", REPO / "src")
OBJECTIVE = "src/advloop/objectives/${objective.name}.py"

# What a stage uses and does not declare, and why an edit of it needs no rerun.
UNDECLARED = {
    "src/advloop/infra": "progress, locks, snapshots, timings and tracking make no bytes",
    "stages/_runtime": "options, errors, processes and snapshots: how a stage starts and ends",
    "src/advloop/objectives/__init__.py": "finds the declared module; sets no defaults",
}
# Imports point down this list: a room may use those below it, and infra from everywhere.
ROOMS = (
    {"reporting", "export"},
    {"training", "evaluation"},
    {"objectives"},
    {"diffusion", "models"},
    {"data"},
    {"params"},
    {"core"},
)


def script_of(stage: str) -> Path:
    found = re.match(r"python (stages/\w+\.py) ", STAGES[stage]["cmd"])
    assert found, STAGES[stage]["cmd"]
    return REPO / found[1]


def name_of(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


# --- What is declared against what the code says ---


def find_module(name: str) -> Path | None:
    """The project's file of a dotted module name, or None if it is not the project's."""
    for root in ROOTS:
        path = root.joinpath(*name.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def statements(tree: ast.AST, *, lazy: bool) -> list[ast.Import | ast.ImportFrom]:
    """Imports that happen at run time; those inside functions only with ``lazy``."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += [s for other in node.orelse for s in statements(other, lazy=lazy)]
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += statements(node, lazy=lazy)
    return found


@cache
def imports(path: Path, lazy: bool = True) -> frozenset[str]:
    """Dotted names that a file imports, each with the packages around it."""
    names: set[str] = set()
    for statement in statements(ast.parse(path.read_text()), lazy=lazy):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{path}: relative import"
            assert statement.module
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    parts = [name.split(".") for name in names]
    return frozenset(".".join(p[:k]) for p in parts for k in range(1, len(p) + 1))


def closure(*files: Path, lazy: bool = True) -> set[Path]:
    """The files and every file of the project that they import, directly or not."""
    seen: set[Path] = set()
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            found = (find_module(name) for name in imports(path, lazy))
            waiting += [module for module in found if module]
    return seen


def room_of(path: Path) -> str:
    """The package of a module of the library; empty for what lies in none."""
    return path.relative_to(LIBRARY).parts[0] if path.parent != LIBRARY else ""


def declared_as(path: Path) -> str:
    """What stands in dvc.yaml for a file: its package, or itself outside of the library."""
    if path.is_relative_to(REPO / "stages/_runtime"):
        return "stages/_runtime"
    if not path.is_relative_to(LIBRARY):
        return name_of(path)
    room = room_of(path)
    if room == "objectives":
        return name_of(path) if path.name == "__init__.py" else OBJECTIVE
    return f"src/advloop/{room}"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_declares_its_script_and_the_packages_that_make_its_bytes(stage: str) -> None:
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))]
    files = [script_of(stage)]
    if OBJECTIVE in declared:  # found by its name, and so in no import statement
        files += sorted((LIBRARY / "objectives").glob("[!_]*.py"))
    # check_config reads an objective's parameters, and never calls its formula
    found = closure(*files, lazy=stage != "check_config")
    needed = {declared_as(path) for path in found if path != LIBRARY / "__init__.py"}
    assert needed - set(UNDECLARED) == set(declared)
    assert len(declared) <= 8


def test_objective_imports_no_other_objective() -> None:
    for path in (LIBRARY / "objectives").glob("[!_]*.py"):
        others = {p for p in closure(path) if declared_as(p) == OBJECTIVE}
        assert others == {path}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    used = {find_module(name) for name in imports(path) if name.startswith("advloop.")} - {None}
    rooms = {room_of(module) for module in used if module}
    own = room_of(path)
    if own in ("infra", ""):
        assert rooms - {"infra", ""} <= {"core"}
        return
    level = next(k for k, rooms_here in enumerate(ROOMS) if own in rooms_here)
    below = set().union(*ROOMS[level:]) | ({"infra"} if own != "core" else set())
    assert rooms - {""} <= below


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_library_knows_neither_dvc_nor_the_command_line_nor_stages(path: Path) -> None:
    scripts = {script.stem for script in (REPO / "stages").glob("*.py")}
    tops = {name.split(".")[0] for name in imports(path)}
    assert (
        tops & ({"dvc", "argparse", "hydra", "hydra_plugins", "stages", "_runtime"} | scripts)
        == set()
    )


@pytest.mark.parametrize("folder", ["src", "stages"])
def test_a_clock_that_jumps_changes_neither_order_nor_interval(folder: str) -> None:
    """Times of day are printed alone: nothing is computed from them."""
    code = "\n".join(path.read_text() for path in sorted((REPO / folder).rglob("*.py")))
    assert re.findall(r"\btime\.time\(|\bdatetime\b|\bst_[acm]time\b|\bgetmtime\b", code) == []


def params_read(script: Path) -> set[str]:
    """Sections, single values (``section.name``) and scalars that a stage's script reads."""
    tree = ast.parse(script.read_text())
    readers = {
        alias.name: alias.name.removeprefix("read_")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith(("advloop.params.", "advloop.objectives"))
        for alias in node.names
        if alias.name.startswith("read_")
    }
    single = {
        node.value: node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call)
    }
    read: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr != "content", f"{script.name} reads params by another way"
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in readers:
            read.add(readers[node.func.id])
        if not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "everything":
            sections = {*SECTIONS, *VALUES, "diffusion", "objective"}
            read |= sections - {ast.literal_eval(a) for a in node.args}
        if node.func.attr in ("section", "unchecked", "at", "value"):
            name = node.args[0]
            assert isinstance(name, ast.Constant), f"{script.name}: computed section name"
            read.add(f"{name.value}.{single[node]}" if node in single else str(name.value))
    return read


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "check_config"])
def test_stage_declares_the_parameters_it_reads(stage: str) -> None:
    declared = set(STAGES[stage].get("params", []))
    read = params_read(script_of(stage))
    assert {key.split(".")[0] for key in declared} == {key.split(".")[0] for key in read}
    hidden = {key for key in read if key not in declared and key.split(".")[0] not in declared}
    assert hidden == set(), "read, but another value of the section is declared"


def test_stages_that_compute_features_declare_the_weights_and_no_other_does() -> None:
    source = "${derived.feature_source}"
    computing = {name for name in STAGES if "load_features(" in script_of(name).read_text()}
    assert computing == {"evaluate_base", "evaluate"}
    assert {name for name, body in STAGES.items() if source in body["deps"]} == computing


@pytest.mark.parametrize("stage", STAGES)
def test_command_holds_structure_and_no_parameter(stage: str) -> None:
    structure = {"key", "item.model", "item.fakes_options", "item.discriminator_option"}
    structure |= {"derived.captions_option"}
    assert set(re.findall(r"\$\{(.*?)\}", STAGES[stage]["cmd"])) <= structure


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_the_command_is_declared(stage: str) -> None:
    body = STAGES[stage]
    named = [*body["deps"]]
    for kind in ("outs", "metrics", "plots"):
        named += [next(iter(out)) if isinstance(out, dict) else out for out in body.get(kind, [])]
    written = body["cmd"].replace("${derived.captions_option}", "")
    paths = re.findall(r" ((?:outputs|reports)/\S+)", written)
    assert paths
    for path in paths:
        assert any(d == path or d.startswith(f"{path}/") for d in named), f"{path} of {stage}"


def test_full_run_of_three_rounds_has_at_most_24_stages_and_captions_one_more(fakes: Path) -> None:
    listed = must(dvc(fakes, "stage", "list", "--name-only")).stdout.split()
    assert set(listed) == ONCE | stages_of(0, 1)
    assert len(listed) + len(PER_ITERATION) <= 24
    compose(fakes, "data.captions=text", "data.text_encoder=encoder")
    listed = must(dvc(fakes, "stage", "list", "--name-only")).stdout.split()
    assert set(listed) == ONCE | stages_of(0, 1) | {"encode_captions@text"}


@pytest.mark.parametrize("stage", ["check_config", "prepare", "publish", "report"])
def test_light_stage_loads_no_heavy_package(stage: str) -> None:
    heavy = ("torch", "torchvision", "diffusers", "pandas", "dvc")
    code = (
        f"import sys; sys.path.insert(0, 'stages'); import {stage}; "
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    done = must(command(REPO, sys.executable, "-c", code))
    assert done.stdout.split() == []


@pytest.mark.parametrize("stage", ["train_autoencoder", "encode_dataset", "encode", "train_disc"])
def test_stage_without_a_unet_does_not_wait_for_diffusers(stage: str) -> None:
    files = closure(script_of(stage), lazy=False)
    found = {name for path in files for name in imports(path, lazy=False)}
    assert "torch" in found
    assert found & {"diffusers", "torchvision"} == set()


# --- What DVC runs: real repositories, fake stages ---

PER_ITERATION = ("generate", "encode", "train_disc", "train_diffusion", "evaluate")
LAST = {"select", "publish", "report"}
ONCE = {"check_config", "prepare", "train_autoencoder", "encode_dataset", "train_base"}
ONCE |= {"evaluate_base"} | LAST


def stages_of(*iterations: int, names: tuple[str, ...] = PER_ITERATION) -> set[str]:
    """``name@i`` for these iterations."""
    return {f"{name}@{i}" for name in names for i in iterations}


TRAINED = ("train_diffusion", "evaluate")  # follow from a discriminator that moves the model


def results(project: Path) -> dict[str, bytes]:
    return snapshot(project / "outputs") | {"dvc.lock": (project / "dvc.lock").read_bytes()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r}"
    path.write_text(text.replace(old, new))


def repro_with(project: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`dvc repro` with these settings, which takes DVC half the time of an experiment."""
    compose(project, *overrides)
    return must(dvc(project, "repro"))


def error_line(result: subprocess.CompletedProcess[str], start: str) -> str:
    """The one line of a failed command that begins with ``start``; no traceback around it."""
    assert result.returncode != 0, result.stdout
    assert "Traceback" not in result.stdout, result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith(start)]
    assert len(lines) >= 1, result.stdout
    return lines[0]


def test_first_repro_runs_every_stage_once(finished_fakes: Finished) -> None:
    assert sorted(stages_run(finished_fakes.printed)) == sorted(ONCE | stages_of(0, 1))


def test_second_repro_runs_nothing_and_leaves_the_lock_alone(fakes: Path) -> None:
    before = (fakes / "dvc.lock").read_bytes()
    assert ran(must(dvc(fakes, "repro"))) == set()
    assert (fakes / "dvc.lock").read_bytes() == before
    assert git(fakes, "status", "--porcelain") == ""


def test_growing_runs_the_new_iteration_only_and_shrinking_what_sums_up(one_round: Path) -> None:
    before, published = results(one_round), snapshot(one_round / "outputs/published")
    grown = must(dvc(one_round, "exp", "run", "-S", "num_iterations=2"))
    assert ran(grown) == {"check_config"} | LAST | stages_of(1)
    assert snapshot(one_round / "outputs/published") != published
    shrunk = repro_with(one_round)
    assert ran(shrunk) <= {"check_config"} | LAST
    assert not (one_round / "outputs/rounds/iter_1").exists()
    after = results(one_round)
    lock = "dvc.lock"  # keeps what it knows of iteration 1
    assert {k: v for k, v in after.items() if k != lock} == {
        k: v for k, v in before.items() if k != lock
    }
    locks = [yaml.safe_load(found[lock])["stages"] for found in (before, after)]
    assert {name: locks[1][name] for name in locks[0]} == locks[0]
    again = repro_with(one_round, "num_iterations=2")
    assert ran(again) <= {"check_config"} | LAST
    assert (one_round / "outputs/rounds/iter_1/model/checkpoint_best.pt").is_file()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(
            ["train_disc.epochs=3"],
            stages_of(0, names=("train_disc", "evaluate")),
            id="a discriminator setting leaves a model alone that no discriminator moves",
        ),
        pytest.param(
            ["train_diffusion.epochs=3"],
            stages_of(0, names=TRAINED),
            id="a diffusion setting starts at train_diffusion@0",
        ),
        pytest.param(
            ["objective=none"],
            stages_of(0, names=TRAINED),
            id="an objective starts at train_diffusion@0",
        ),
        pytest.param(
            ["generate.num_samples=24"],
            stages_of(0),
            id="the number of samples starts at generate@0 and encode@0",
        ),
        pytest.param(
            ["evaluate.num_seeds=4"],
            stages_of(0, names=("evaluate",)) | {"evaluate_base"},
            id="an evaluation setting evaluates",
        ),
        pytest.param(["exp_name=other"], set(), id="another name publishes and reports"),
    ],
)
def test_setting_reruns_what_depends_on_it(
    one_round: Path, overrides: list[str], expected: set[str]
) -> None:
    done = repro_with(one_round, *overrides)
    assert ran(done) - LAST == expected | {"check_config"}
    assert ran(done) & LAST == (LAST if expected else {"publish", "report"})


def test_discriminator_setting_retrains_the_model_that_a_discriminator_moves(
    one_round: Path,
) -> None:
    repro_with(one_round, "objective=seed")
    done = repro_with(one_round, "objective=seed", "train_disc.epochs=3")
    assert ran(done) == {"check_config"} | stages_of(0, names=("train_disc", *TRAINED)) | LAST


def test_one_step_predictions_are_made_only_where_a_discriminator_sees_them(
    one_round: Path,
) -> None:
    done = repro_with(one_round, "train_disc.predicted_fraction=0.5")
    assert ran(done) - LAST == {"check_config"} | stages_of(
        0, names=("predict", "train_disc", "evaluate")
    )


def test_other_content_of_the_users_feature_weights_evaluates_again(one_round: Path) -> None:
    weights, scored = one_round / "mine.pt", stages_of(0, names=("evaluate",)) | {"evaluate_base"}
    weights.write_text("1")
    settings = ("evaluate.features=inception", "evaluate.feature_weights=mine.pt")
    assert ran(repro_with(one_round, *settings)) - LAST == scored | {"check_config"}
    assert ran(must(dvc(one_round, "repro"))) == set()
    weights.write_text("2")
    assert ran(must(dvc(one_round, "repro"))) - LAST == scored


def test_what_changes_a_round_changes_the_next_one(fakes: Path) -> None:
    done = repro_with(fakes, "train_diffusion.epochs=3")
    again = stages_of(0, 1, names=TRAINED) | {"generate@1", "train_disc@1"}
    assert ran(done) == again | {"check_config"} | LAST


def test_edit_of_what_makes_no_bytes_reruns_nothing(one_round: Path) -> None:
    for path in ("src/advloop/infra/progress.py", "stages/_runtime/errors.py"):
        with (one_round / path).open("a") as file:
            file.write("# another line\n")
    (one_round / "src/advloop/objectives/another.py").write_text("RECIPE = None\n")
    assert ran(must(dvc(one_round, "repro"))) == set()


def test_hand_edited_num_iterations_is_refused_with_the_command_that_fixes_it(fakes: Path) -> None:
    before = results(fakes)
    edit(fakes / "params.yaml", "num_iterations: 2", "num_iterations: 3")
    done = dvc(fakes, "repro")
    line = error_line(done, "error: params.yaml: ")
    assert "`make params`" in line
    assert "`dvc exp run -S num_iterations=3`" in line
    assert ran(done) == {"check_config"}
    unchanged = {name: data for name, data in before.items() if name != "config.ok"}
    assert {name: data for name, data in results(fakes).items() if name != "config.ok"} == unchanged


def test_change_of_conf_without_composing_is_refused_until_it_is_composed(
    one_round: Path,
) -> None:
    edit(one_round / "conf/scale/tiny.yaml", "num_seeds: 3", "num_seeds: 4")
    done = dvc(one_round, "repro")
    assert "`make params`" in error_line(done, "error: params.yaml: conf/ has changed")
    assert ran(done) == {"check_config"}
    assert "evaluate@0" in ran(repro_with(one_round))


def test_bad_override_fails_in_one_readable_line_and_spoils_nothing(one_round: Path) -> None:
    before = results(one_round)
    kept = {name: data for name, data in before.items() if name != "config.ok"}
    for override, reason in (
        ("data.source=null", "data.source=null must be the path of a file or a folder"),
        ("num_iterations=300", "num_iterations=300 must be a whole number from 1 to 100"),
        ("train_disc.epochs=0", "train_disc.epochs=0 must be at least 1"),
    ):
        done = dvc(one_round, "exp", "run", "-S", override)
        assert done.returncode != 0
        assert "Traceback" not in done.stdout
        lines = done.stdout.splitlines()
        assert [line for line in lines if reason in line], done.stdout
        assert len(lines) == 1 or ran(done)  # what is composed, DVC has not seen
        assert ran(done) <= {"check_config"}
        found = results(one_round)
        assert {name: data for name, data in found.items() if name != "config.ok"} == kept
    assert ran(must(dvc(one_round, "exp", "run"))) <= {"check_config"}


def test_repro_after_a_failure_goes_on_from_the_last_finished_stage(one_round: Path) -> None:
    edit(one_round / "conf/scale/tiny.yaml", "num_samples: 20", "num_samples: 24")
    compose(one_round)
    fail_at(one_round, "train_disc@0")
    broken = dvc(one_round, "repro")
    assert broken.returncode != 0
    finished = ran(broken) - {"train_disc@0"}
    fail_at(one_round)
    resumed = must(dvc(one_round, "repro"))
    assert {"check_config", "generate@0", "encode@0"} <= finished
    assert ran(resumed) == ({"check_config"} | stages_of(0) | LAST) - finished


def test_iteration_1_can_be_redone_while_iteration_0_stays(fakes: Path) -> None:
    before = (fakes / "dvc.lock").read_bytes()
    done = must(dvc(fakes, "repro", "--force", "--downstream", "generate@1", "encode@1"))
    assert ran(done) == stages_of(1) | LAST
    assert (fakes / "dvc.lock").read_bytes() == before


def test_one_stage_can_be_redone_alone(fakes: Path) -> None:
    done = must(dvc(fakes, "repro", "--force", "--single-item", "train_disc@1"))
    assert ran(done) == {"train_disc@1"}


def test_experiment_in_a_temporary_copy_leaves_the_workspace_alone(one_round: Path) -> None:
    before = results(one_round)
    done = must(dvc(one_round, "exp", "run", "--temp", "-S", "evaluate.num_seeds=4"))
    assert {"evaluate@0", "report"} <= ran(done)
    assert not ran(done) & {"prepare", "train_base", "generate@0", "train_disc@0"}
    assert results(one_round) == before
    assert git(one_round, "status", "--porcelain") == ""
    shown = must(dvc(one_round, "exp", "show", "--csv")).stdout
    assert len([line for line in shown.splitlines() if "branch_base" in line]) == 1, shown


def test_experiments_queued_together_run_side_by_side_with_the_library_of_their_time(
    one_round: Path,
) -> None:
    project = one_round
    for seeds in (4, 5):
        override = f"evaluate.num_seeds={seeds}"
        queued = ("exp", "run", "--queue", "--name", f"seeds-{seeds}", "-S", override)
        must(dvc(project, *queued))
    before = results(project)
    schema = project / "src/advloop/params/checks.py"
    schema.write_text("raise SystemExit('the library of the workspace')\n")
    # Not by `dvc`: it would wait for the workers, which keep standard output and idle for a while.
    subprocess.run(
        [*CLIENT, str(BIN / "dvc"), "queue", "start", "--jobs", "2"],
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    try:
        deadline = time.monotonic() + 300
        while (
            len(re.findall(r"Success|Failed", status := dvc(project, "queue", "status").stdout)) < 2
        ):
            assert time.monotonic() < deadline, status
            time.sleep(1)
    finally:
        dvc(project, "queue", "stop", "--kill")
    assert status.count("Success") == 2, dvc(project, "queue", "logs").stdout
    assert results(project) == before
    refs = git(project, "for-each-ref", "refs/exps", "--format=%(refname)").split()
    reports = set()
    for seeds in (4, 5):
        (ref,) = [ref for ref in refs if ref.endswith(f"/seeds-{seeds}")]
        params = yaml.safe_load(git(project, "show", f"{ref}:params.yaml"))
        assert params["evaluate"]["num_seeds"] == seeds
        reports.add(git(project, "show", f"{ref}:reports/metrics.json"))
    assert len(reports) == 2
    commit(project, "Break the workspace's library")
    broken = dvc(project, "repro", "--force", "--single-item", "check_config")
    assert "the library of the workspace" in broken.stdout


def test_locks_that_a_killed_dvc_left_unfinished_are_mended_and_nothing_runs_twice(
    one_round: Path,
) -> None:
    edit(one_round / "conf/scale/tiny.yaml", "num_seeds: 3", "num_seeds: 4")
    compose(one_round)
    must(dvc(one_round, "repro"))
    lock = one_round / "dvc.lock"
    finished = lock.read_text()
    for kept in ("", "stages:\n", "publish:\n    cmd:", "publish:\n    cm"):
        lock.write_text(finished[: finished.index(kept) + len(kept)])
        refused = dvc(one_round, "repro")
        assert refused.returncode != 0
        assert torn_file(refused.stdout) == "dvc.lock", refused.stdout
    git(one_round, "restore", "dvc.lock")
    in_use = one_round / ".dvc/tmp/rwlock"
    in_use.write_text("")
    refused = dvc(one_round, "repro")
    assert refused.returncode != 0
    assert torn_file(refused.stdout) == ".dvc/tmp/rwlock", refused.stdout
    in_use.unlink()
    assert ran(must(dvc(one_round, "repro"))) <= {"report"}
    assert lock.read_text() == finished


@pytest.mark.timing
def test_repro_without_work_costs_at_most_three_seconds_of_cpu(fakes: Path) -> None:
    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ran(must(dvc(fakes, "repro"))) == set()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(cost() for _ in range(3)) <= 3

"""docs/machines.md: its commands do what the page says, in projects of fake stages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import REPO, command, commit, compose, git, must, ran, snapshot

PAGE = (REPO / "docs/machines.md").read_text()
NAMELESS = 54321  # a user id that no passwd file lists


def block(heading: str, number: int = 0) -> str:
    """A block of commands below a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)[number]


def run(project: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return must(command(project, "bash", "-euo", "pipefail", "-c", script, **env))


def edit(path: Path, old: str, new: str) -> None:
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def test_cache_on_another_disk_takes_the_outputs_and_everything_still_works(
    one_round: Path, tmp_path: Path
) -> None:
    before, big = snapshot(one_round / "outputs"), tmp_path / "big disk"
    script = "".join(block("Outputs on another disk", k) for k in (0, 1))
    script = script.replace("/BIG/DISK", f"'{big}'").replace("GROUP", str(os.getgid()))
    edit(one_round / "conf/scale/tiny.yaml", "num_seeds: 3", "num_seeds: 4")
    compose(one_round)
    done = run(one_round, f"{script}dvc repro\ndvc status")
    assert "Data and pipelines are up to date" in done.stdout
    after = snapshot(one_round / "outputs")
    assert before.keys() == after.keys()
    assert before["base/checkpoint_best.pt"] == after["base/checkpoint_best.pt"]
    assert before["final/content.txt"] != after["final/content.txt"]
    for path in (one_round / "outputs").rglob("*"):
        assert path.is_dir() or path.resolve().is_relative_to(big), path
    assert not (one_round / ".dvc/cache").exists()
    folders = [path for path in (big / "cache").rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o2070 for path in folders} == {0o2070}  # the new ones, too


def test_two_merged_runs_become_one_by_the_recipe(one_round: Path) -> None:
    tiny = one_round / "conf/scale/tiny.yaml"
    for branch, old, new in (
        ("theirs", "num_seeds: 3", "num_seeds: 4"),
        ("main", "smallest_change: 0.1", "smallest_change: 0.2"),
    ):
        git(one_round, "switch", "--quiet", *(["-c"] if branch == "theirs" else []), branch)
        edit(tiny, old, new)
        compose(one_round)
        run(one_round, "dvc repro")
        commit(one_round, branch)
    assert command(one_round, "git", "merge", "theirs").returncode != 0
    conflicts = set(git(one_round, "diff", "--name-only", "--diff-filter=U").split())
    assert {"dvc.lock", "params.yaml", "reports/metrics.json"} <= conflicts
    for name in ("dvc.lock", "params.yaml"):
        assert yaml.safe_load((one_round / name).read_text()), "ours, without marks"
    first, rest = block("Two runs merged").split("make params\n")
    run(one_round, first)
    compose(one_round)
    done = run(one_round, rest)
    assert "evaluate@0" in ran(done)
    assert git(one_round, "status", "--porcelain") == ""
    evaluate = yaml.safe_load((one_round / "params.yaml").read_text())["evaluate"]
    assert (evaluate["num_seeds"], evaluate["smallest_change"]) == (4, 0.2)
    assert ran(run(one_round, "dvc repro")) == set()


def test_experiments_in_a_copy_find_new_pictures_by_each_way_of_the_page(one_round: Path) -> None:
    for name in ("pictures", "more", "my pictures (1)"):
        shutil.copytree(one_round / "images", one_round / name)
        (one_round / name / "new.txt").write_text(name)  # not one run for another
    lost = command(one_round, *["dvc", "exp", "run", "--temp", "-S", "data.source=more", "prepare"])
    assert "data.source=more is not in this copy of the project" in lost.stdout
    head = "Experiments in a copy: `--temp` and `--queue`"
    values = block("The project's folder, and values of `-S`")
    quoted = values.replace("'my pictures (1)'", "more")
    quoted = quoted.replace("'data.source=\"my pictures (1)\"'", "data.source=more")
    assert quoted == block(head, 1)  # so that one run shows both
    for script in (block(head, 0), values):
        shorter = re.sub("(dvc exp run .*)", r"\1 prepare", script)  # the stage that reads them
        assert "prepare" in ran(run(one_round, shorter))


def test_clean_up_keeps_the_experiments_that_are_wanted(one_round: Path) -> None:
    experiment = "dvc exp run --temp --name {0} -S exp_name={0} publish\n"
    run(one_round, experiment.format("wanted") + experiment.format("not-wanted"))
    before = snapshot(one_round / "outputs")
    cache = snapshot(one_round / ".dvc/cache/files")
    run(one_round, block("Free space", 0))
    assert snapshot(one_round / ".dvc/cache/files").keys() < cache.keys()
    run(one_round, "dvc exp apply wanted && git restore . && rm -r outputs")
    assert "Stage 'report' didn't change" in run(one_round, block("Free space", 1)).stdout
    run(one_round, "dvc checkout && dvc gc --workspace --force")  # which the page warns of
    half = command(one_round, "dvc", "exp", "apply", "wanted")
    assert "Is your cache up to date?" in half.stdout
    run(one_round, "git restore . && dvc checkout")
    assert snapshot(one_round / "outputs") == before


def test_nameless_user_without_a_home_can_work_after_the_block(one_round: Path) -> None:
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("only root can become a user id without a name")
    for path in (one_round.parent, *one_round.parent.rglob("*")):
        os.chown(path, NAMELESS, NAMELESS, follow_symlinks=False)
    script = block("Containers").replace("/tmp/home", str(one_round.parent / "home"))
    run_as = ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"]
    run_as += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # of this Python
    run_as += ["env", "-i", f"PATH={Path(sys.executable).parent}:{os.defpath}"]
    trusted = "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'\n"
    done = command(one_round, *run_as, "bash", "-euc", f"{trusted}export HOME=/nowhere\ndvc status")
    assert "getpwuid(): uid not found" in done.stdout
    must(command(one_round, *run_as, "bash", "-euc", f"{trusted}{script}dvc status"))


def test_smaller_installation_leaves_out_packages_of_the_lock_that_no_code_imports() -> None:
    script = block("A smaller installation")
    left_out = re.findall(r"--no-install-package ([\w-]+)", script)
    locked = {p["name"] for p in tomllib.loads((REPO / "uv.lock").read_text())["package"]}
    assert left_out
    assert set(left_out) <= locked
    code = "\n".join(p.read_text() for d in ("src", "stages") for p in (REPO / d).rglob("*.py"))
    assert not re.search(r"\btriton\b|torch\.compile|import cuda\b", code)
    dry = script.replace("make setup", "make --dry-run --always-make UV=uv setup")
    assert "--no-dev --no-install-package triton" in run(REPO, dry).stdout
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"^\| extra `(\w+)`", PAGE, re.M)) <= set(extras)


def test_remedy_of_line_ends_is_the_one_that_doctor_prints() -> None:
    from checkup.checkout import TO_LF

    assert "; ".join(block("Windows line ends").splitlines()) == TO_LF

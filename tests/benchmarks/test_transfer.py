"""`make transfer`: what it runs, what it changes, and the page that it writes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from composing import compose
from conftest import REPO, commit, git
from omegaconf import OmegaConf
from PIL import Image

import transfer
from advloop.core.errors import UserError
from rendered_images import DRAWN, SIZE, draw_images
from transfer import PAGE, PLAN, RESULTS, execute, settings_of
from transfer_page import page

ROUNDS = (
    "num_iterations",
    "generate",
    "discriminator",
    "train_disc",
    "train_diffusion",
    "objective",
)
RUNS = list(PLAN["runs"])
FAKE_DVC = f"""#!{sys.executable}
import json, pathlib, sys
pathlib.Path("called.json").write_text(json.dumps(sys.argv[1:]))
sys.exit("seed=13" in sys.argv)
"""


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_the_plan_change_no_setting_of_rounds(name, tmp_path):
    committed = OmegaConf.load(REPO / "params.yaml")
    composed = compose(tmp_path / "params.yaml", *settings_of(name)).content
    assert composed["seed"] == PLAN["seed"]
    for section in ROUNDS:
        assert composed[section] == committed[section], section


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_drawn_images_are_the_same_each_time_and_listed_with_their_groups(name, tmp_path):
    for folder in ("one", "two"):
        draw_images(name, tmp_path / folder, 12)
    files = sorted(path.name for path in (tmp_path / "one").glob("*.png"))
    assert len(files) == 12
    assert len({(tmp_path / "one" / file).read_bytes() for file in files}) == 12
    for file in [*files, "manifest.csv"]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert {Image.open(tmp_path / "one" / file).size for file in files} == {(SIZE, SIZE)}
    with (tmp_path / "one/manifest.csv").open() as rows:
        assert [row["file"] for row in csv.DictReader(rows)] == files


def test_the_same_pair_of_letters_is_one_group_whatever_its_case_and_colour(tmp_path):
    draw_images("letters", tmp_path, 300)
    with (tmp_path / "manifest.csv").open() as rows:
        groups = [row["group"] for row in csv.DictReader(rows)]
    assert 26 < len(set(groups)) < 300
    assert all(len(group) == 2 and group.islower() for group in groups)


@pytest.fixture
def origin(tmp_path, monkeypatch) -> Path:
    """A git repository to clone, and a `dvc` that only writes down how it was called."""
    binaries, root = tmp_path / "bin", tmp_path / "origin"
    binaries.mkdir()
    (binaries / "dvc").write_text(FAKE_DVC)
    (binaries / "dvc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("transfer.NUMBER", 3)
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "file").write_text("content")
    commit(root, "A file")
    return root


def test_a_run_is_an_experiment_in_a_clone_with_its_images_and_goes_on_there(origin):
    clone = execute("letters", origin)
    (clone / "half").write_text("of a run")
    assert execute("letters", origin) == clone
    assert (clone / "half").exists()
    assert len(list((clone / "data/letters").glob("*.png"))) == 3
    called = json.loads((clone / "called.json").read_text())
    assert called[:2] == ["exp", "run"]
    assert called[2::2] == ["-S"] * len(called[3::2])
    assert called[3::2] == settings_of("letters")
    assert "data.source=data/letters" in called


def test_a_clone_of_another_commit_is_not_gone_on_with(origin):
    execute("letters", origin)
    (origin / "more").write_text("content")
    commit(origin, "More")
    with pytest.raises(UserError, match=r"^\.transfer/letters: cloned .*; remove the folder"):
        execute("letters", origin)


def test_half_a_clone_is_not_taken_for_a_whole_one(origin):
    (origin / ".transfer/letters.half").mkdir(parents=True)
    assert (execute("letters", origin) / "file").read_text() == "content"


def test_a_run_without_dvc_on_the_path_is_one_line(origin, monkeypatch, tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only/git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path / "only"))
    with pytest.raises(UserError, match=r"^dvc: not found; run `make transfer`"):
        execute("letters", origin)


def test_a_run_that_stops_is_named_in_one_line_that_says_how_to_go_on(origin, monkeypatch):
    monkeypatch.setitem(PLAN, "seed", 13)
    with pytest.raises(UserError, match=r"^`dvc exp run` failed in \S+, see above; `make "):
        execute("spheres", origin)


def test_a_run_that_the_plan_does_not_have_is_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["transfer.py", "letters", "faces"])
    assert transfer.main() == 1
    assert capsys.readouterr().err == (
        f"error: faces: not in plan.yaml, which has {', '.join(RUNS)}\n"
    )


def test_committed_page_is_made_from_the_committed_results_of_every_run_of_the_plan():
    results = json.loads((REPO / RESULTS).read_text())
    assert list(results) == RUNS
    committed = json.loads((REPO / transfer.METRICS).read_text())
    assert page(results, committed) == (REPO / PAGE).read_text()
    for name, run in results.items():
        assert run["settings"] == settings_of(name)
        assert (REPO / transfer.PICTURES / f"{name}.png").exists()

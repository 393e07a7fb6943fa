"""Where a chaos run strikes."""

from __future__ import annotations

import math
import subprocess
import sys

import yaml

from chaos import clone, report
from kills import KINDS, Course, Strike, Survival


def test_an_attempt_is_placed_by_its_first_stage_that_the_undisturbed_run_saw():
    """The quick stage `encode` was over before anyone looked in the undisturbed run."""
    course = Course({"generate": 10.0, "train_disc": 30.0}, 60.0)
    assert course.limit({"generate": 2.0}, 35.0) == 2.0 + 25.0
    assert course.limit({"encode": 1.0, "train_disc": 4.0}, 35.0) == 4.0 + 5.0
    assert course.limit({"encode": 1.0}, 35.0) == math.inf


def test_page_has_a_row_for_each_of_the_six_kinds_and_counts_what_was_mended():
    strikes = [Strike(kind, f"stage{k}") for k, kind in enumerate(KINDS)]
    strikes[-1].torn.append("dvc.lock")
    page = report(Survival(strikes, 90.0), 60.0, same=True, scale="demo", call="--kills 6 --seed 0")
    rows = [line for line in page.splitlines() if line.startswith("| SIG")]
    assert rows == [f"| {kind.name} | 1 | stage{k} |" for k, kind in enumerate(KINDS)]
    assert len(rows) == 6
    assert "identical to that of an undisturbed run" in page
    assert "5.0 s more for each kill" in page
    assert "1 time it found half a dvc.lock" in page


def test_clone_has_no_finished_stage_and_the_settings_that_were_asked_for(tmp_path):
    folder = clone(tmp_path / "clone", ["train_diffusion.epochs=2"])
    assert yaml.safe_load((folder / "dvc.lock").read_text()) == {"schema": "2.0"}
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["train_diffusion"]["epochs"] == 2
    done = subprocess.run(
        [sys.executable, "stages/check_config.py", "--out", "config.ok"], cwd=folder
    )
    assert done.returncode == 0

"""What a stage has cost: noted where DVC runs it, and never where DVC would hash it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from conftest import REPO
from stage_folder import StageFolder

import timed_report
from advloop.core.errors import UserError
from advloop.core.timings import read_timings, record
from advloop.reporting.template import BEGIN, END

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once


def test_a_record_says_how_long_how_much_and_on_what(tmp_path: Path) -> None:
    began = time.monotonic()
    record("generate@0", tmp_path)
    (first,) = read_timings(tmp_path)
    time.sleep(0.5)
    record("generate@0", tmp_path)  # takes the place of the first
    (second,) = read_timings(tmp_path)
    assert 0.5 <= second.seconds - first.seconds <= time.monotonic() - began + 0.2
    assert first.memory > 10
    assert f", {torch.get_num_threads()} thread" in first.machine
    assert second.finished >= first.finished


def test_a_stage_notes_its_cost_under_dvc_alone_and_its_output_knows_nothing_of_it(
    stages: StageFolder, good_stages: Path
) -> None:
    folder = stages.root / ".state/timings"
    assert stages.run("report").status == 0
    assert not folder.exists()
    stages.patch.setenv("DVC_STAGE", "dvc.yaml:report@0")
    assert stages.run("report").status == 0
    assert [timing.stage for timing in read_timings(folder)] == ["report@0"]
    made = stages.root / "made/report.html"
    assert made.read_bytes() == (good_stages / "report.html").read_bytes()


def test_a_cost_that_cannot_be_noted_fails_no_stage(stages: StageFolder) -> None:
    (stages.root / ".state").mkdir(exist_ok=True)
    (stages.root / ".state/timings").write_text("no folder")
    stages.patch.setenv("DVC_STAGE", "report")
    outcome = stages.run("report")
    assert outcome.status == 0
    assert outcome.err.startswith("warning: the stage's time is not recorded")


@pytest.mark.parametrize("content", ["[]", "{}", '{"stage": 1}', "{"])
def test_a_record_that_is_none_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json: not"):
        read_timings(tmp_path)


def test_a_record_with_an_unfit_value_is_refused(tmp_path: Path) -> None:
    record("a", tmp_path)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": "long"}))
    with pytest.raises(UserError, match="seconds=long is unfit"):
        read_timings(tmp_path)


def test_the_timed_copy_has_the_stages_of_the_run_and_leaves_the_page_alone(
    stages: StageFolder, good_stages: Path
) -> None:
    page = stages.root / "reports/report.html"
    page.parent.mkdir()
    page.write_bytes((good_stages / "report.html").read_bytes())
    for stage in ("prepare", "generate@1", "generate@2", "publish_samples@2-001"):
        record(stage, stages.root / ".state/timings")
    timed = (stages.root / timed_report.write_timed(stages.root)).read_text()
    block = timed.partition(BEGIN)[2].partition(END)[0]
    assert ">prepare<" in block
    assert ">generate@1<" in block  # of two rounds
    assert "@2" not in block  # of a run that had more
    assert page.read_bytes() == (good_stages / "report.html").read_bytes()


def test_without_a_report_the_command_that_makes_it_is_named(stages: StageFolder) -> None:
    with pytest.raises(
        UserError, match=r"reports/report\.html: not found; make it with `dvc repro`"
    ):
        timed_report.write_timed(stages.root)


def test_the_timed_copy_is_in_neither_git_nor_the_pipeline() -> None:
    assert f"/{timed_report.TIMED}" in (REPO / ".gitignore").read_text().splitlines()
    assert "timed" not in (REPO / "dvc.yaml").read_text()

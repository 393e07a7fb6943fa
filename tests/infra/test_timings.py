"""The cost of a stage is recorded if DVC runs it, and never where DVC would hash it."""

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
from advloop.infra.timings import read_timings, record
from advloop.reporting.template import BEGIN, END

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once


def test_a_record_says_how_long_how_much_and_on_what(tmp_path: Path):
    began = time.monotonic()
    record("generate@0", tmp_path)
    (first,) = read_timings(tmp_path)
    time.sleep(0.3)
    record("generate@0", tmp_path)  # replaces the first
    (second,) = read_timings(tmp_path)
    assert 0.3 <= second.seconds - first.seconds + 0.1 <= time.monotonic() - began + 0.3
    assert first.memory > 10
    assert f", {torch.get_num_threads()} thread" in first.machine
    assert second.finished >= first.finished


def test_a_stage_records_its_cost_under_dvc_alone_and_writes_the_same_output(
    stages: StageFolder, good_stages: Path
):
    folder = stages.root / ".state/timings"
    assert stages.run("report").status == 0
    assert not folder.exists()
    stages.patch.setenv("DVC_STAGE", "dvc.yaml:report@0")
    assert stages.run("report").status == 0
    assert [timing.stage for timing in read_timings(folder)] == ["report@0"]
    made = stages.root / "made/report.html"
    assert made.read_bytes() == (good_stages / "report.html").read_bytes()


def test_a_cost_that_cannot_be_recorded_is_a_warning(stages: StageFolder):
    (stages.root / ".state").mkdir(exist_ok=True)
    (stages.root / ".state/timings").write_text("no folder")
    stages.patch.setenv("DVC_STAGE", "report")
    outcome = stages.run("report")
    assert outcome.status == 0
    assert outcome.err.startswith("warning: the stage's time is not recorded")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "not the record of a stage; remove it"),
        ('{"stage": 1}', "not the record of a stage; remove it"),
        ("{", "not valid JSON .*"),
        ({"seconds": "long"}, "seconds=long has the wrong type; remove it"),
    ],
)
def test_a_damaged_record_is_refused_by_name(
    tmp_path: Path, content: str | dict[str, str], reason: str
):
    path = tmp_path / "a.json"
    if isinstance(content, dict):
        record("a", tmp_path)
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_text(content)
    with pytest.raises(UserError, match=rf"a\.json: {reason}$"):
        read_timings(tmp_path)


def test_the_timed_copy_has_the_stages_of_the_run_and_leaves_the_page_alone(
    stages: StageFolder, good_stages: Path
):
    with pytest.raises(UserError, match=r"report\.html: not found; make it with `dvc repro`"):
        timed_report.write_timed(stages.root)
    page = stages.root / "reports/report.html"
    page.parent.mkdir()
    page.write_bytes((good_stages / "report.html").read_bytes())
    for stage in ("prepare", "generate@0", "generate@1"):
        record(stage, stages.root / ".state/timings")
    timed = (stages.root / timed_report.write_timed(stages.root)).read_text()
    block = timed.partition(BEGIN)[2].partition(END)[0]
    assert ">prepare<" in block
    assert ">generate@0<" in block
    assert "@1" not in block  # left over from a run with more rounds
    assert page.read_bytes() == (good_stages / "report.html").read_bytes()


def test_the_timed_copy_is_in_neither_git_nor_the_pipeline():
    assert f"/{timed_report.TIMED}" in (REPO / ".gitignore").read_text().splitlines()
    assert "timed" not in (REPO / "dvc.yaml").read_text()

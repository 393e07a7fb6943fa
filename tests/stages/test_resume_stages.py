"""Every stage that takes snapshots ends with the same bytes after being killed between any two."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from _runtime import errors

import pytest
import torch
from conftest import environment, snapshot
from killed import Killed, die_after_snapshots
from stage_runner import ROUND, START, arguments, run_stage
from warm_python import CLIENT, warm_python

from advloop.core.errors import UserError

pytestmark = pytest.mark.xdist_group("resume_stages")  # one worker: the whole run is made once

STAGES = START | ROUND
RESUMABLE = [stage for stage in STAGES if stage not in ("prepare", "encode")]
RESUMING = "resuming where an earlier run was interrupted"


@pytest.fixture
def project(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to break, as working directory; a snapshot at every occasion."""
    copy = tmp_path / "project"
    shutil.copytree(whole, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    return copy


def outputs_of(stage: str) -> list[Path]:
    names = {"out", "metrics", "history", "predicted", "manifest"}
    if stage == "train_disc":
        names -= {"predicted", "manifest"}  # which it reads
    return [Path(value) for name, value in STAGES[stage].items() if name in names]


def contents(path: Path) -> object:
    return snapshot(path) if path.is_dir() else path.read_bytes()


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def killed_at_first_snapshot(monkeypatch: pytest.MonkeyPatch, stage: str) -> bool:
    """Run the stage until its first snapshot is complete; False if it ended without one."""
    with monkeypatch.context() as patched:
        die_after_snapshots(patched)
        try:
            run_stage(stage, STAGES[stage], patched)
        except Killed:
            return True
    return False


def snapshot_folders(project: Path) -> list[str]:
    return sorted(path.name for path in (project / ".state").iterdir() if path.name != "locks")


@pytest.mark.parametrize("stage", RESUMABLE)
def test_a_stage_killed_again_and_again_ends_with_the_bytes_of_an_undisturbed_one(
    whole: Path, project: Path, stage: str, monkeypatch: pytest.MonkeyPatch
):
    kills, running = 0, True
    while running:
        for path in outputs_of(stage):  # as DVC does before it runs a stage
            remove(path)
        running = killed_at_first_snapshot(monkeypatch, stage)
        kills += running
        assert kills < 20, "it makes no progress"
        assert len(snapshot_folders(project)) == running
    assert kills >= 2
    for path in outputs_of(stage):
        assert contents(project / path) == contents(whole / path), path


@pytest.mark.parametrize("stage", ["prepare", "encode", "train_autoencoder", "encode_dataset"])
def test_a_stage_killed_between_two_outputs_runs_again_over_what_it_left(
    whole: Path, project: Path, stage: str, monkeypatch: pytest.MonkeyPatch
):
    for path in outputs_of(stage):
        remove(path)
    rename = Path.replace

    def last_rename(self: Path, target: Path) -> Path:
        rename(self, target)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", last_rename)
        with pytest.raises(Killed):
            run_stage(stage, STAGES[stage], patched)
    run_stage(stage, STAGES[stage], monkeypatch)
    for path in outputs_of(stage):
        assert contents(project / path) == contents(whole / path), path


def edit_params(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))


def change_input() -> None:
    latents = torch.load("latents/train.pt", weights_only=True)
    torch.save(latents + 1e-3, "latents/train.pt")


def change_own_parameter() -> None:
    edit_params("learning_rate: 0.0003\n", "learning_rate: 0.002\n")


def change_other_parameter() -> None:
    edit_params("num_iterations: 2", "num_iterations: 3")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("change", "resumed"),
    [(change_input, False), (change_own_parameter, False), (change_other_parameter, True)],
)
def test_a_snapshot_is_used_only_for_the_same_inputs_and_parameters(
    change: Callable[[], None], resumed: bool, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert killed_at_first_snapshot(monkeypatch, "train_diffusion")
    change()
    run_stage("train_diffusion", STAGES["train_diffusion"], monkeypatch)
    assert (RESUMING in capsys.readouterr().out) == resumed
    assert Path("diffusion/metrics.csv").read_text().splitlines()[1].startswith("1,")


def test_a_damaged_snapshot_ends_the_stage_with_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    assert killed_at_first_snapshot(monkeypatch, "train_disc")
    (file,) = (project / ".state").rglob("state.pt")
    file.write_bytes(b"no tensor")
    with pytest.raises(UserError, match=r"\.state/train_disc-.*state\.pt: .*remove it"):
        run_stage("train_disc", STAGES["train_disc"], monkeypatch)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_an_interval_that_is_no_number_of_seconds_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", value)
    with pytest.raises(UserError, match=f"ADVLOOP_SNAPSHOT_SECONDS={value}: must be"):
        run_stage("train_disc", STAGES["train_disc"], monkeypatch)


def test_an_output_that_another_process_writes_is_refused_with_its_number(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    before = snapshot(project / "discriminator")
    with (project / ".state/locks/discriminator").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write("123 (train_disc, since 2026-01-01 00:00:00)")
        file.flush()
        with pytest.raises(UserError) as caught:
            run_stage("train_disc", STAGES["train_disc"], monkeypatch)
    assert str(caught.value) == (
        "discriminator: process 123 (train_disc, since 2026-01-01 00:00:00) is still writing it; "
        "wait until it has finished, or stop it with `kill 123`"
    )
    assert snapshot(project / "discriminator") == before


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_stage_in_one_line(sign: signal.Signals, capsys):
    # in a job in the background, SIGINT is ignored
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            errors.run_stage(lambda: os.kill(os.getpid(), sign))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; `dvc repro` resumes this stage\n"


# --- stages in processes of their own ---

# A stage that stands still after each snapshot, for as long as there is a file ``hold``.
HELD = """
import runpy, sys, time
from pathlib import Path
sys.path[0] = "stages"
sys.path.insert(1, "src")
from advloop.infra.snapshots import Snapshots
take = Snapshots.take
def held_take(self, make):
    take(self, make)
    while Path("hold").exists():
        time.sleep(0.01)
Snapshots.take = held_take
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(project: Path, *script: str, **env: str) -> subprocess.Popen[str]:
    """train_disc, with a snapshot at every occasion."""
    own = {"WARM_PYTHON": warm_python("train_disc"), "ADVLOOP_SNAPSHOT_SECONDS": "0"}
    options = arguments(STAGES["train_disc"])
    return subprocess.Popen(
        [*CLIENT, *script, "stages/train_disc.py", *options],
        cwd=project,
        env=environment(project) | own | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_held(project: Path, **env: str) -> subprocess.Popen[str]:
    """train_disc, once it has taken a snapshot and stands still."""
    before = set((project / ".state").glob("train_disc-*/snapshot-*"))
    (project / "hold").touch()
    (project / "held.py").write_text(HELD)
    process = start(project, "held.py", **env)
    # not rglob: it fails if a folder inside a snapshot goes while it looks
    while not set((project / ".state").glob("train_disc-*/snapshot-*")) - before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def copy_without_result(whole: Path, folder: Path) -> Path:
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "discriminator")
    return folder


def test_a_stage_ended_by_signals_resumes_where_it_stopped(whole: Path, tmp_path: Path):
    project = copy_without_result(whole, tmp_path / "project")
    for sign, status in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        stopped = start_held(project)
        stopped.send_signal(sign)
        _, err = stopped.communicate(timeout=60)
        assert stopped.returncode == status
        assert "Traceback" not in err
        shutil.rmtree(project / "discriminator", ignore_errors=True)
    last = start(project)
    out, err = last.communicate()
    assert last.returncode == 0, err
    assert RESUMING in out
    assert snapshot(project / "discriminator") == snapshot(whole / "discriminator")


def test_twins_in_two_copies_of_a_project_do_not_touch_each_others_snapshots(
    whole: Path, tmp_path: Path
):
    """Like two `dvc exp run --temp` of one stage: their snapshots lie in one repository."""
    project, other = (copy_without_result(whole, tmp_path / name) for name in ("one", "other"))
    first = start_held(project, DVC_ROOT=str(project))
    held = snapshot(project / ".state")
    second = start(other, DVC_ROOT=str(project))
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "the same computation is running elsewhere; this one takes no snapshots" in out
    assert snapshot(project / ".state") == held
    (project / "hold").unlink()
    _, err = first.communicate()
    assert first.returncode == 0, err
    for copy in (project, other):
        assert snapshot(copy / "discriminator") == snapshot(whole / "discriminator")

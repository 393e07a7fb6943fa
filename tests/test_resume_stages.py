"""Every stage that takes snapshots, killed between two of them: the same bytes at the end."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import BIN, environment, snapshot
from stage_runner import ROUND, START, run_stage

from advloop.core.errors import UserError
from advloop.core.resume import Snapshots

pytestmark = pytest.mark.xdist_group("resume_stages")  # one worker: the whole run is made once

STAGES = START | ROUND
RESUMABLE = [stage for stage in STAGES if stage != "prepare"]
WRITTEN = ("out", "metrics", "history", "predicted", "manifest")  # names of outputs


class Killed(BaseException):
    """No code of ours catches it, as none catches SIGKILL."""


@pytest.fixture
def project(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to break, as working directory; a snapshot at every occasion."""
    copy = tmp_path / "project"
    shutil.copytree(whole, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    return copy


def outputs_of(stage: str) -> list[Path]:
    """Those of the options of train_disc that its name for an input shares are no outputs."""
    options = STAGES[stage]
    names = set(WRITTEN) - ({"manifest", "predicted"} if stage == "train_disc" else set())
    return [Path(options[name]) for name in names if name in options]


def remove(stage: str) -> None:
    """What DVC does before it runs a stage."""
    for path in outputs_of(stage):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, stage: str) -> bool:
    """Run the stage, and kill it as its snapshot ``number`` is whole; False if it ended before."""
    take: Callable[..., None] = Snapshots.take
    taken = 0

    def dying_take(self, make):
        nonlocal taken
        take(self, make)
        taken += 1
        if taken == number:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Snapshots, "take", dying_take)
        try:
            run_stage(stage, STAGES[stage], patched)
        except Killed:
            return True
    return False


def states(project: Path) -> list[str]:
    return sorted(path.name for path in (project / ".state").iterdir() if path.name != "locks")


@pytest.mark.parametrize("stage", RESUMABLE)
def test_a_stage_killed_again_and_again_ends_with_the_bytes_of_an_undisturbed_one(
    whole: Path, project: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    while True:
        remove(stage)
        if not killed_at(1, monkeypatch, stage):
            break
        kills += 1
        assert kills < 20, "it does not come further"
        assert len(states(project)) == 1
    assert kills >= 2
    assert states(project) == []
    for path in outputs_of(stage):
        ours, theirs = (
            snapshot(root / path) if (root / path).is_dir() else (root / path).read_bytes()
            for root in (project, whole)
        )
        assert ours == theirs, path


def change_input() -> None:
    latents = torch.load("latents/train.pt", weights_only=True)
    torch.save(latents + 1e-3, "latents/train.pt")


def change_params() -> None:
    edit_params("learning_rate: 0.0003\n", "learning_rate: 0.002\n")


def edit_params(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("change", [change_input, change_params])
def test_a_snapshot_of_other_inputs_or_parameters_is_never_used(
    change: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert killed_at(1, monkeypatch, "train_diffusion")
    change()
    run_stage("train_diffusion", STAGES["train_diffusion"], monkeypatch)
    assert "goes on where" not in capsys.readouterr().out
    assert Path("diffusion/metrics.csv").read_text().splitlines()[1].startswith("1,")


@pytest.mark.usefixtures("project")
def test_parameters_of_other_stages_leave_a_snapshot_in_force(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert killed_at(1, monkeypatch, "train_disc")
    edit_params("num_iterations: 2", "num_iterations: 3")
    run_stage("train_disc", STAGES["train_disc"], monkeypatch)
    assert "goes on where" in capsys.readouterr().out


def test_a_damaged_snapshot_ends_the_stage_with_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed_at(1, monkeypatch, "train_disc")
    (file,) = (project / ".state").rglob("state.pt")
    file.write_bytes(b"no tensor")
    with pytest.raises(UserError, match=r"\.state/train_disc-.*state\.pt: .*remove it"):
        run_stage("train_disc", STAGES["train_disc"], monkeypatch)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_an_interval_that_is_no_number_of_seconds_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", value)
    with pytest.raises(UserError, match=f"ADVLOOP_SNAPSHOT_SECONDS={value}: must be"):
        run_stage("train_disc", STAGES["train_disc"], monkeypatch)


# --- two processes ---


def start(project: Path, stage: str, *python: str, **env: str) -> subprocess.Popen[str]:
    argv = [str(BIN / "python"), *python, f"stages/{stage}.py"]
    for option, value in STAGES[stage].items():
        argv += [f"--{option}", str(value)]
    return subprocess.Popen(
        argv,
        cwd=project,
        env=environment(project) | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background ignores SIGINT, and what it starts would too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_second_process_on_the_same_outputs_says_who_writes_them(project: Path) -> None:
    lock = project / ".state/locks/discriminator"
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()} (train_disc, since 2026-01-01 00:00:00)")
        file.flush()
        before = snapshot(project / "discriminator")
        second = start(project, "train_disc")
        _, err = second.communicate()
    assert second.returncode == 1
    assert err == (
        f"error: discriminator: process {os.getpid()} (train_disc, since 2026-01-01 00:00:00) is "
        "still writing it; wait until it has finished, or end it with "
        f"`kill {os.getpid()}`\n"
    )
    assert snapshot(project / "discriminator") == before


# A stage that stands still after its first snapshot, for as long as the file ``hold`` is there.
HELD = """
import runpy, sys, time
from pathlib import Path
sys.path[:0] = ["stages", "src"]
from advloop.core.resume import Snapshots
take = Snapshots.take
def held_take(self, make):
    take(self, make)
    while Path("hold").exists():
        time.sleep(0.01)
Snapshots.take = held_take
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_held(project: Path, stage: str, **env: str) -> subprocess.Popen[str]:
    """The stage, once it has taken its first snapshot and stands still."""
    (project / "hold").touch()
    env = {"ADVLOOP_SNAPSHOT_SECONDS": "0"} | env
    process = start(project, stage, "-c", HELD, **env)
    while not list((project / ".state").rglob("snapshot-*/state.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def copy_without_result(whole: Path, folder: Path) -> Path:
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "discriminator")
    return folder


@pytest.mark.parametrize("sign", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_stage_that_a_signal_ends_goes_on_where_it_stopped(
    whole: Path, tmp_path: Path, sign: str
) -> None:
    project = copy_without_result(whole, tmp_path / "project")
    first = start_held(project, "train_disc")
    first.send_signal(getattr(signal, sign))
    _, err = first.communicate(timeout=60)
    assert first.returncode == (-9 if sign == "SIGKILL" else 130)
    assert "Traceback" not in err
    shutil.rmtree(project / "discriminator", ignore_errors=True)
    second = start(project, "train_disc")
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "goes on where an earlier run of it was interrupted" in out
    assert snapshot(project / "discriminator") == snapshot(whole / "discriminator")


def test_twins_in_two_copies_of_a_project_do_not_touch_each_others_snapshots(
    whole: Path, tmp_path: Path
) -> None:
    """As two `dvc exp run --temp` of the same stage: their snapshots lie in one repository."""
    project, other = (copy_without_result(whole, tmp_path / name) for name in ("one", "other"))
    shared = {"DVC_ROOT": str(project), "ADVLOOP_SNAPSHOT_SECONDS": "0"}
    first = start_held(project, "train_disc", **shared)
    held = snapshot(project / ".state")
    second = start(other, "train_disc", **shared)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "the same computation runs elsewhere; this one takes no snapshots" in out
    assert snapshot(project / ".state") == held
    (project / "hold").unlink()
    out, err = first.communicate()
    assert first.returncode == 0, err
    for copy in (project, other):
        assert snapshot(copy / "discriminator") == snapshot(whole / "discriminator")

"""N processes do what one does: the same bytes where rows are apart, rounding where they add up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from conftest import BIN, environment, snapshot
from omegaconf import OmegaConf
from ranks_worker import STAGES, answers, loss_and_gradients, work
from torch.multiprocessing.spawn import start_processes

from advloop.core.ranks import free_port
from advloop.objectives.registry import OBJECTIVES

pytestmark = pytest.mark.xdist_group("resume_stages")  # the worker that has ``whole``

COUNT = 2
# float32 sums in another order: 2^-24 = 6e-8 an addition, over some thousands of them
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
SAME = ("latents/train.pt", "fake_latents.pt", "predicted_latents.pt", "real_latents.pt")
TABLES = ("base/metrics.csv", "diffusion/metrics.csv", "discriminator/discriminator_history.csv")
MODELS = ("base/checkpoint_best.pt", "diffusion/checkpoint_latest.pt")


@pytest.fixture(scope="module")
def shared(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The round of ``whole``, made once more by COUNT processes from its first two stages."""
    project = tmp_path_factory.mktemp("shared") / "project"
    made = {Path(str(v)).parts[0] for options in STAGES.values() for v in options.values()}
    kept = {"data", "autoencoder"}
    shutil.copytree(whole, project, ignore=shutil.ignore_patterns(*(made - kept)))
    start_processes(work, (COUNT, project, free_port()), COUNT, start_method="spawn")
    return project


def load(path: Path) -> object:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", SAME)
def test_latents_are_the_same_bytes_where_their_model_is(
    whole: Path, shared: Path, name: str
) -> None:
    ours, theirs = load(whole / name), load(shared / name)
    assert isinstance(ours, torch.Tensor)
    assert isinstance(theirs, torch.Tensor)
    if "fake" in name or "predicted" in name:  # their base model was trained by sums
        torch.testing.assert_close(theirs, ours, **ROUNDING)
    else:
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("name", TABLES)
def test_training_differs_by_rounding(whole: Path, shared: Path, name: str) -> None:
    pd.testing.assert_frame_equal(
        pd.read_csv(shared / name), pd.read_csv(whole / name), check_exact=False, rtol=1e-4
    )


@pytest.mark.parametrize("name", MODELS)
def test_weights_differ_by_rounding(whole: Path, shared: Path, name: str) -> None:
    ours, theirs = load(whole / name), load(shared / name)
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    torch.testing.assert_close(theirs["ema"], ours["ema"], **ROUNDING)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_step_of_an_objective_has_the_terms_and_gradients_of_one_process(
    shared: Path, name: str
) -> None:
    for rank in range(COUNT):
        content = load(shared / f"rank_{rank}.pt")
        assert isinstance(content, dict)
        torch.testing.assert_close(content["steps"][name], loss_and_gradients(name), **ROUNDING)


def test_every_process_is_given_every_result_in_the_order_of_the_jobs(shared: Path) -> None:
    for rank in range(COUNT):
        content = load(shared / f"rank_{rank}.pt")
        assert isinstance(content, dict)
        torch.testing.assert_close(content["answers"], answers(), rtol=0, atol=0)


# --- the stage's own processes ---


def start(project: Path, **env: str) -> subprocess.Popen[str]:
    argv = [str(BIN / "python"), "stages/train_disc.py"]
    for option, value in STAGES["train_disc"].items():
        argv += [f"--{option}", str(value)]
    return subprocess.Popen(
        argv,
        cwd=project,
        env=environment(project) | {"ADVLOOP_DEVICE": "cpu", "OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def project(whole: Path, tmp_path: Path) -> Path:
    """One whose train_disc has not run, and takes long enough to be met at work."""
    copy = tmp_path / "project"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "discriminator")
    params = OmegaConf.load(copy / "params.yaml")
    params.train_disc.epochs = 100
    OmegaConf.save(params, copy / "params.yaml")
    return copy


def test_killed_process_ends_the_stage_in_one_line_and_the_next_run_goes_on_to_the_same_bytes(
    project: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other)
    first = start(project, ADVLOOP_PROCESSES="2", ADVLOOP_SNAPSHOT_SECONDS="0")
    while not list((project / ".state").rglob("snapshot-*/state.pt")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    ranks = [
        child
        for child in psutil.Process(first.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
    ranks[1].send_signal(signal.SIGKILL)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert err == (
        "error: process 2 of 2 was ended by SIGKILL; `dvc repro` goes on where the stage stopped\n"
    )
    shutil.rmtree(project / "discriminator", ignore_errors=True)

    second = start(project, ADVLOOP_PROCESSES="2")
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert "goes on where an earlier run of it was interrupted" in out
    launched = start(other, ADVLOOP_LAUNCHER="torchrun --standalone --nproc-per-node=2")
    _, err = launched.communicate(timeout=300)
    assert launched.returncode == 0, err
    assert snapshot(project / "discriminator") == snapshot(other / "discriminator")


@pytest.mark.parametrize("value", ["0", "two"])
def test_number_of_processes_that_is_none_is_refused(project: Path, value: str) -> None:
    refused = start(project, ADVLOOP_PROCESSES=value)
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert err == (f"error: ADVLOOP_PROCESSES={value}: must be a whole number above 0; unset it\n")


def test_bad_input_is_one_line_and_not_one_a_process(project: Path) -> None:
    (project / "fake_latents.pt").write_bytes(b"no tensor")
    refused = start(project, ADVLOOP_PROCESSES="2")
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert err.count("error: ") == 1, err
    assert "fake_latents.pt" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("launcher", "reason"),
    [
        ("no-such-program", "No such file or directory: 'no-such-program'"),
        ("torchrun 'half", "No closing quotation"),
        (" ", "is empty"),
    ],
)
def test_launcher_that_cannot_be_started_is_one_line(
    project: Path, launcher: str, reason: str
) -> None:
    refused = start(project, ADVLOOP_LAUNCHER=launcher)
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert err.startswith(f"error: ADVLOOP_LAUNCHER={launcher}: ")
    assert err.endswith(f"{reason}; correct or unset it\n")
    assert err.count("\n") == 1


def test_launcher_that_fails_is_named(project: Path) -> None:
    refused = start(project, ADVLOOP_LAUNCHER="false --every time")
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert err.startswith("error: ADVLOOP_LAUNCHER=false --every time: ended with status 1; ")

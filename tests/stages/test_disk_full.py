"""If the disk is full there is one clear line, and what was there before is whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import snapshot
from stage_runner import ROUND, run_stage

from advloop.core.errors import UserError
from advloop.core.files import atomic_path, load_torch, reserve, save_torch
from advloop.data.latents import TensorWriter
from advloop.infra.locks import try_lock
from advloop.training.history import write_history

KIB = 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, mounted for this test alone."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mount.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here ({mount.stderr.strip()}); root can")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Leave this many bytes free."""
    free = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize - leave))


def refused(path: Path, write: Callable[[], object]) -> None:
    """``write`` is refused in one line, with nothing lost and nothing half-written."""
    before = snapshot(path.parent)
    with pytest.raises(UserError) as caught:
        write()
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written (No space left on device)")
    assert len(message.splitlines()) == 1
    assert snapshot(path.parent) == before


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one_loadable(small: Path):
    path = small / "checkpoint.pt"
    save_torch(path, {"ema": torch.zeros(10_000)})
    refused(path, lambda: save_torch(path, {"ema": torch.ones(300_000)}))
    assert torch.equal(load_torch(path)["ema"], torch.zeros(10_000))


def test_latents_that_do_not_fit_leave_the_last_ones(small: Path):
    path = small / "latents.pt"
    save_torch(path, torch.zeros(10, 1, 8, 8))
    refused(path, lambda: TensorWriter(path, (5000, 1, 8, 8)))  # before the first row

    def write() -> None:
        with TensorWriter(path, (3000, 1, 8, 8)) as writer:  # 750 KiB, and as much again at the end
            writer.append(torch.ones(3000, 1, 8, 8))

    refused(path, write)


def test_a_history_that_does_not_fit_leaves_the_rows_before(small: Path):
    path = small / "metrics.csv"
    rows = [{"epoch": float(k), "loss": 1 / (k + 1)} for k in range(3000)]
    write_history(path, rows[:10])
    fill(small, leave=8 * KIB)
    refused(path, lambda: write_history(path, rows))


def test_a_memory_mapped_file_is_reserved_before_it_is_written(small: Path):
    path = small / "images.npy"

    def write() -> None:
        with atomic_path(path) as temporary:
            shape = (1200, 32, 32, 1)
            images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            reserve(temporary, temporary.stat().st_size)
            images[:] = 1  # SIGBUS if it were not reserved

    refused(path, write)


@pytest.mark.parametrize("kind", ["No space left on device", "Read-only file system"])
def test_a_lock_that_cannot_be_written_is_refused_in_one_line(small: Path, kind: str):
    if kind.startswith("Read"):
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    else:
        fill(small, leave=0)
    with pytest.raises(UserError, match=rf"locks/out: cannot be written \({kind}\)"):
        try_lock(small / "locks/out")


@pytest.mark.xdist_group("resume_stages")  # the worker that has ``whole``
def test_a_stage_on_a_full_disk_ends_in_one_line_and_runs_once_there_is_room(
    whole: Path, tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
):
    project = tmp_path / "project"
    shutil.copytree(whole, project)
    monkeypatch.chdir(project)
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    options = ROUND["train_diffusion"] | {"out": small}
    fill(small, leave=8 * KIB)  # room for the CSV, and not for a checkpoint
    with pytest.raises(UserError, match=f"{small}/checkpoint_latest.pt: cannot be .*No space"):
        run_stage("train_diffusion", options, monkeypatch)
    assert not [path for path in small.iterdir() if path.name.startswith(".")]
    (small / "filler").unlink()
    run_stage("train_diffusion", options, monkeypatch)
    made, expected = snapshot(small), snapshot(whole / "diffusion")
    assert made == {name: expected[name] for name in made}
    assert {"checkpoint_latest.pt", "checkpoint_best.pt", "metrics.csv"} <= made.keys()

"""A disk that is full: one clear line, and what was there before is whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BIN, environment, make_project, snapshot
from stage_runner import ROUND, START, run_stage

from advloop.core.errors import UserError
from advloop.core.io import atomic_path, load_torch, reserve, save_torch
from advloop.history import write_history
from advloop.tensor_writer import TensorWriter

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
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here ({mount.stderr.strip()}); root can")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Leave so many bytes free."""
    free = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize - leave))


def refused(path: Path, write) -> None:
    before = snapshot(path.parent)
    with pytest.raises(UserError) as caught:
        write()
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written (No space left on device)")
    assert len(message.splitlines()) == 1
    assert snapshot(path.parent) == before  # nothing lost, nothing half-written


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one_loadable(small: Path) -> None:
    path = small / "checkpoint.pt"
    save_torch(path, {"ema": torch.zeros(10_000)})
    refused(path, lambda: save_torch(path, {"ema": torch.ones(300_000)}))
    assert torch.equal(load_torch(path)["ema"], torch.zeros(10_000))


def test_latents_that_do_not_fit_are_refused_before_the_first_row(small: Path) -> None:
    path = small / "latents.pt"
    save_torch(path, torch.zeros(10, 1, 8, 8))
    refused(path, lambda: TensorWriter(path, (5000, 1, 8, 8)))


def test_latents_whose_copy_does_not_fit_leave_the_last_ones(small: Path) -> None:
    path = small / "latents.pt"
    save_torch(path, torch.zeros(10, 1, 8, 8))

    def write() -> None:
        with TensorWriter(path, (3000, 1, 8, 8)) as writer:  # 750 KiB, and as much again at the end
            writer.append(torch.ones(3000, 1, 8, 8))

    refused(path, write)


def test_a_history_that_does_not_fit_leaves_the_rows_before(small: Path) -> None:
    path = small / "metrics.csv"
    rows = [{"epoch": float(k), "loss": 1 / (k + 1)} for k in range(3000)]
    write_history(path, rows[:10])
    fill(small, leave=8 * KIB)
    refused(path, lambda: write_history(path, rows))


def test_a_memory_mapped_file_is_reserved_before_it_is_written(small: Path) -> None:
    path = small / "images.npy"

    def write() -> None:
        with atomic_path(path) as temporary:
            shape = (1200, 32, 32, 1)
            images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            reserve(temporary, temporary.stat().st_size)
            images[:] = 1  # without the line above: SIGBUS

    refused(path, write)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project before its first round's diffusion training."""
    project = make_project(tmp_path_factory.mktemp("disk"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        for stage, options in (START | {"train_disc": ROUND["train_disc"]}).items():
            run_stage(stage, options, monkeypatch)
    return project


def test_a_stage_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    project: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("ADVLOOP_SNAPSHOT_SECONDS", "0")
    argv = [str(BIN / "python"), "stages/train_diffusion.py"]
    options = ROUND["train_diffusion"] | {"out": small, "metrics": "metrics.json"}
    for option, value in options.items():
        argv += [f"--{option}", str(value)]

    def train() -> subprocess.CompletedProcess[str]:
        env = environment(project) | {"ADVLOOP_SNAPSHOT_SECONDS": "0"}
        return subprocess.run(
            argv, cwd=project, env=env, capture_output=True, text=True, check=False
        )

    fill(small, leave=8 * KIB)  # the CSV fits, a checkpoint does not
    first = train()
    assert first.returncode == 1
    (line,) = first.stderr.splitlines()
    assert line.startswith(f"error: {small}/checkpoint_latest.pt: cannot be written (No space")
    assert not [path for path in small.iterdir() if path.name.startswith(".")]
    (small / "filler").unlink()
    second = train()
    assert second.returncode == 0, second.stderr

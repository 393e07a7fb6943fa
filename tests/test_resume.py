"""Snapshots: what is taken is what comes back, and a stopped training goes on to the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import snapshot
from test_autoencoder import PARAMS as AUTOENCODER
from test_diffusion_training import equal, make_criterion, make_setup
from test_disc_training import ALPHAS, MODEL, side
from test_disc_training import PARAMS as DISC
from tiny_unet import CONFIG

from advloop.autoencoder_training import train_autoencoder
from advloop.core import resume
from advloop.core.errors import UserError
from advloop.core.io import atomic_path
from advloop.core.resume import RowProgress, Snapshots
from advloop.diffusion_training import train_diffusion
from advloop.disc.training import train_discriminator
from advloop.objectives.weighting import AdaptiveWeight
from advloop.objectives.x0 import make_x0
from advloop.tensor_writer import TensorWriter
from advloop.unet import build_unet

CPU = torch.device("cpu")


class Killed(BaseException):
    """No code of ours catches it, as none catches SIGKILL."""


def write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def snapshots(folder: Path, interval: float = 0.0) -> Snapshots:
    return Snapshots(folder / "state", [folder / "out", folder / "metrics.json"], interval)


# --- one snapshot ---


def test_without_a_snapshot_there_is_nothing_to_load_and_nothing_is_made(tmp_path):
    assert snapshots(tmp_path).load() is None
    assert list(tmp_path.iterdir()) == []


def test_the_latest_snapshot_is_loaded_and_the_ones_before_it_are_gone(tmp_path):
    state = snapshots(tmp_path)
    for epoch in range(3):
        state.take(lambda epoch=epoch: {"epoch": epoch})
    assert snapshots(tmp_path).load() == {"epoch": 2}
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_outputs_come_back_as_they_were_at_the_snapshot(tmp_path):
    write(tmp_path / "out/best.pt", "epoch 1")
    write(tmp_path / "out/samples/epoch_1.png", "picture")
    write(tmp_path / "metrics.json", "{}")
    before = snapshot(tmp_path)
    snapshots(tmp_path).take(dict)
    write(tmp_path / "out/best.pt", "epoch 2, which the next process has not seen")
    for name in before:  # as DVC does before it runs a stage again
        (tmp_path / name).unlink()
    snapshots(tmp_path).load()
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.startswith("state")} == before


def test_a_crash_while_a_snapshot_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    state = snapshots(tmp_path)
    state.take(lambda: {"epoch": 1})

    def die(*_):
        raise Killed

    for name in ("save_torch", "_link_tree"):
        with monkeypatch.context() as patched:
            patched.setattr(resume, name, die)
            with pytest.raises(Killed):
                state.take(lambda: {"epoch": 2})
        assert snapshots(tmp_path).load() == {"epoch": 1}
    state.take(lambda: {"epoch": 3})
    assert snapshots(tmp_path).load() == {"epoch": 3}


def test_a_crash_before_the_old_snapshot_is_removed_leaves_the_new_one_in_force(
    tmp_path, monkeypatch
):
    state = snapshots(tmp_path)
    state.take(lambda: {"epoch": 1})

    def die(_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(resume, "sync_folder", die)
        with pytest.raises(Killed):
            state.take(lambda: {"epoch": 2})
    assert snapshots(tmp_path).load() == {"epoch": 2}
    state.take(lambda: {"epoch": 3})
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_a_damaged_snapshot_is_named(tmp_path):
    snapshots(tmp_path).take(lambda: {"epoch": 1})
    (file,) = (tmp_path / "state").rglob("state.pt")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"state\.pt: damaged .* remove it"):
        snapshots(tmp_path).load()


def test_a_snapshot_is_copied_where_no_link_can_be(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    write(tmp_path / "metrics.json", "{}")
    monkeypatch.setattr(os, "link", refuse)
    snapshots(tmp_path).take(dict)
    (tmp_path / "metrics.json").unlink()
    snapshots(tmp_path).load()
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_half_written_files_are_not_part_of_a_snapshot(tmp_path):
    write(tmp_path / "out/best.pt", "whole")
    (tmp_path / "out/.best.pt.x7").write_text("ha")
    snapshots(tmp_path).take(dict)
    names = [path.name for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert sorted(names) == ["best.pt", "state.pt"]


def test_nothing_is_left_at_the_end(tmp_path):
    state = snapshots(tmp_path)
    state.take(dict)
    state.scratch("rows").touch()
    state.clear()
    assert not (tmp_path / "state").exists()


# --- how often ---


def test_snapshots_lie_an_interval_apart(tmp_path, monkeypatch):
    clock = iter(count(0.0, 4.0))  # every look at the clock is four seconds later
    monkeypatch.setattr(resume.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(resume, "SHARE", 1.0)
    taken = []
    state = snapshots(tmp_path, interval=10.0)
    monkeypatch.setattr(state, "take", taken.append)
    for _ in range(2):
        state.offer(dict)
    assert taken == []
    state.offer(dict)  # 12 seconds after the start
    assert len(taken) == 1


def test_snapshots_cost_their_share_of_the_time_and_no_more(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(resume.time, "monotonic", lambda: now)
    state = snapshots(tmp_path, interval=1.0)
    spent = 0.0

    def slow():
        nonlocal now, spent
        now, spent = now + 3.0, spent + 3.0  # a snapshot of three seconds
        return {}

    for _ in range(1000):
        now += 10.0  # an epoch
        state.offer(slow)
    assert 0 < spent / now <= resume.SHARE


# --- the loops: stopped and resumed as if nothing had been ---


def stop_after(epochs: int) -> Callable[..., None]:
    """An on_epoch that dies as it sees a later epoch: after the snapshot of the one before."""
    left = iter(range(epochs))

    def on_epoch(*_):
        if next(left, None) is None:
            raise Killed

    return on_epoch


def ignore(*_) -> None:
    """An on_epoch for which an epoch is nothing new."""


@pytest.mark.parametrize("adaptive", [False, True])
def test_diffusion_training_goes_on_to_the_same_weights_and_history(tmp_path, adaptive):
    def train(on_epoch, state=None):
        torch.manual_seed(7)  # what is global must not matter
        objective = make_x0(0.5) if adaptive else "seed"
        setup = make_setup(make_criterion(objective), rows=10, epochs=4, warmup_steps=2)
        if adaptive:
            setup = replace(setup, adaptive=AdaptiveWeight(0.5, 0.5, 3))
        model = build_unet(CONFIG, seed=0)
        history = train_diffusion(setup, model, lambda items: items, on_epoch, state)
        return history, model.state_dict()

    whole = train(ignore)
    with pytest.raises(Killed):
        train(stop_after(2), snapshots(tmp_path))
    seen = []
    history, weights = train(lambda rows, *_: seen.append(len(rows)), snapshots(tmp_path))
    assert seen == [3, 4]
    assert history == whole[0]
    assert equal(weights, whole[1])


@pytest.mark.parametrize("stop_accuracy", [None, 0.5])
def test_discriminator_training_goes_on_to_the_same_result(tmp_path, stop_accuracy):
    params = replace(DISC, epochs=4, plateau_patience=0, stop_accuracy=stop_accuracy)
    train, val = side(0, 30, 0.05), side(1, 30, 0.05)

    def fit(on_epoch, state=None):
        return train_discriminator(params, MODEL, train, val, ALPHAS, 0, 0, on_epoch, state)

    whole = fit(ignore)
    assert (len(whole.history) < 4) == (stop_accuracy is not None)
    state = snapshots(tmp_path)
    if stop_accuracy is None:
        with pytest.raises(Killed):
            fit(stop_after(2), state)
    else:
        fit(ignore, state)  # it stopped early, and died thereafter
    again = fit(ignore, snapshots(tmp_path))
    assert again.history == whole.history
    assert again.best_epoch == whole.best_epoch
    assert equal(again.best, whole.best)
    assert equal(again.final, whole.final)


def test_autoencoder_training_goes_on_to_the_same_weights(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(12, 16, 16, 3), dtype=np.uint8)
    params = replace(AUTOENCODER, epochs=4)

    def train(on_epoch, state=None):
        rows, identity = np.arange(12), lambda epochs: epochs
        return train_autoencoder(params, "hflip", images, rows, 0, CPU, identity, on_epoch, state)

    whole = train(ignore)
    with pytest.raises(Killed):
        train(stop_after(2), snapshots(tmp_path))
    seen = []
    again = train(lambda epoch, _: seen.append(epoch), snapshots(tmp_path))
    assert seen == [3, 4]
    assert equal(again.state_dict(), whole.state_dict())


def test_a_file_of_latents_goes_on_at_the_row_after_the_last_snapshot(tmp_path):
    latents = torch.randn(10, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    written = []

    def fill(state, stop=99):
        done = RowProgress(state)
        for name in ("a.pt", "b.pt"):
            with TensorWriter(tmp_path / "out" / name, tuple(latents.shape), done) as writer:
                for start in range(writer.filled, 10, 2):
                    if len(written) == stop:
                        raise Killed
                    written.append((name, start))
                    writer.append(latents[start : start + 2])

    with pytest.raises(Killed):
        fill(snapshots(tmp_path), stop=7)
    assert written[-1] == ("b.pt", 2)
    fill(snapshots(tmp_path))
    assert written[7:] == [("b.pt", 4), ("b.pt", 6), ("b.pt", 8)]
    for name in ("a.pt", "b.pt"):
        assert torch.equal(torch.load(tmp_path / "out" / name, weights_only=True), latents)


def test_rows_whose_scratch_file_is_gone_are_written_again(tmp_path):
    def write_two_rows():
        done = RowProgress(snapshots(tmp_path))
        with TensorWriter(tmp_path / "a.pt", (4, 1, 1, 1), done) as writer:
            writer.append(torch.ones(2, 1, 1, 1))
            raise Killed

    with pytest.raises(Killed):
        write_two_rows()
    state = snapshots(tmp_path)
    assert RowProgress(state).filled == {"a.pt": 2}
    state.scratch("a.pt").unlink()
    assert TensorWriter(tmp_path / "a.pt", (4, 1, 1, 1), RowProgress(state)).filled == 0

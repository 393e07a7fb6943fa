"""A snapshot comes back as it was taken, and a stopped training ends with the same bytes."""

from __future__ import annotations

import ast
import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO, snapshot
from killed import Killed
from objective_files import objective_params
from small_diffusion import equal, make_criterion, make_setup
from small_discriminator import make_setup as discriminator_setup
from small_discriminator import side
from tiny_autoencoders import PARAMS as AUTOENCODER
from tiny_unet import CONFIG

from advloop.core.errors import UserError
from advloop.core.files import write_text
from advloop.data.latents import TensorWriter
from advloop.infra import snapshots as module
from advloop.infra.snapshots import RowProgress, Snapshots, fingerprint, loaded_modules
from advloop.models.denoiser import build_denoiser
from advloop.objectives.x0 import AdaptiveWeight, make_x0
from advloop.training.autoencoder import train_autoencoder
from advloop.training.diffusion import train_diffusion
from advloop.training.discriminator import train_discriminator

CPU = torch.device("cpu")


def die(*_):
    raise Killed


def snapshots(folder: Path, interval: float = 0.0) -> Snapshots:
    return Snapshots(folder / "state", [folder / "out", folder / "metrics.json"], interval)


# --- one snapshot ---


def test_without_a_snapshot_nothing_is_loaded_and_nothing_is_made(tmp_path):
    assert snapshots(tmp_path).load() is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_latest_snapshot_is_kept_and_nothing_at_the_end(tmp_path):
    taken = snapshots(tmp_path)
    for epoch in range(3):
        taken.take(lambda epoch=epoch: {"epoch": epoch})
    assert snapshots(tmp_path).load() == {"epoch": 2}
    assert len(list((tmp_path / "state").iterdir())) == 1
    taken.scratch("rows").touch()
    taken.clear()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
def test_outputs_come_back_as_they_were_at_the_snapshot(tmp_path, monkeypatch, linked):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    if not linked:
        monkeypatch.setattr(os, "link", refuse)
    write_text(tmp_path / "out/best.pt", "epoch 1")
    write_text(tmp_path / "out/samples/epoch_1.png", "picture")
    write_text(tmp_path / "metrics.json", "{}")
    before = snapshot(tmp_path)
    snapshots(tmp_path).take(dict)
    write_text(tmp_path / "out/best.pt", "epoch 2, which the crash undoes")
    for name in before:  # as DVC does before it reruns a stage
        (tmp_path / name).unlink()
    snapshots(tmp_path).load()
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.startswith("state")} == before


@pytest.mark.parametrize(
    ("step", "in_force"), [("save_torch", 1), ("_link_tree", 1), ("sync_folder", 2)]
)
def test_a_crash_at_any_step_leaves_one_snapshot_in_force(tmp_path, monkeypatch, step, in_force):
    taken = snapshots(tmp_path)
    taken.take(lambda: {"epoch": 1})
    with monkeypatch.context() as patched:
        patched.setattr(module, step, die)
        with pytest.raises(Killed):
            taken.take(lambda: {"epoch": 2})
    assert snapshots(tmp_path).load() == {"epoch": in_force}
    taken.take(lambda: {"epoch": 3})
    assert snapshots(tmp_path).load() == {"epoch": 3}
    assert len(list((tmp_path / "state").iterdir())) == 1


@pytest.mark.parametrize("removed", range(1, 6))
def test_a_crash_while_snapshots_are_removed_leaves_none_in_part(tmp_path, monkeypatch, removed):
    write_text(tmp_path / "out/best.pt", "epoch 1")
    taken = snapshots(tmp_path)
    taken.take(lambda: {"epoch": 1})
    calls = []

    def dying(remove):
        def once(*args, **options):
            calls.append(args)
            if len(calls) == removed:
                raise Killed
            return remove(*args, **options)

        return once

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", dying(os.unlink))
        patched.setattr(os, "rmdir", dying(os.rmdir))
        with pytest.raises(Killed):
            taken.clear()
    assert snapshots(tmp_path).load() in (None, {"epoch": 1})
    snapshots(tmp_path).clear()
    assert not (tmp_path / "state").exists()


def test_a_damaged_snapshot_is_named(tmp_path):
    snapshots(tmp_path).take(lambda: {"epoch": 1})
    (file,) = (tmp_path / "state").rglob("state.pt")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"state\.pt: damaged .* remove it"):
        snapshots(tmp_path).load()


def test_unfinished_files_are_not_part_of_a_snapshot(tmp_path):
    write_text(tmp_path / "out/best.pt", "whole")
    (tmp_path / "out/.best.pt.x7").write_text("ha")
    snapshots(tmp_path).take(dict)
    names = [path.name for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert sorted(names) == ["best.pt", "state.pt"]


# --- whose snapshot it is ---


def test_fingerprint_follows_facts_contents_and_names_but_not_places(tmp_path):
    for place in ("here", "there"):
        write_text(tmp_path / place / "a/b.txt", "text")
    here, there = ({"input": tmp_path / place} for place in ("here", "there"))
    first = fingerprint({"lr": 0.1}, here)
    assert first == fingerprint({"lr": 0.1}, there)
    changed = [fingerprint({"lr": 0.2}, here), fingerprint({"lr": 0.1}, {"x": here["input"]})]
    (tmp_path / "there/a/b.txt").rename(tmp_path / "there/a/c.txt")
    changed.append(fingerprint({"lr": 0.1}, there))
    write_text(tmp_path / "here/a/b.txt", "other")
    changed.append(fingerprint({"lr": 0.1}, here))
    changed.append(fingerprint({"lr": 0.1}, {"input": tmp_path / "missing"}))
    assert len({first, *changed}) == 6


def test_code_that_counts_is_what_the_process_has_imported():
    root = Path(module.__file__).parents[3]
    found = loaded_modules(root, "src/advloop/infra")
    assert found["src/advloop/infra/snapshots.py"] == Path(module.__file__)
    assert all(name.startswith("src/advloop/infra/") for name in found)


@pytest.mark.parametrize("script", sorted((REPO / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_stage_reads_all_its_parameters_before_its_snapshots_are_named_by_them(script):
    for block in ast.walk(ast.parse(script.read_text())):
        if not isinstance(block, ast.With):
            continue
        opened = [ast.unparse(item) for item in block.items]
        if any(call.startswith("resumable(") for call in opened):
            inside = [name for part in block.body for name in ast.walk(part)]
            read = [n.lineno for n in inside if isinstance(n, ast.Name) and n.id == "params"]
            assert read == []


# --- how often ---


def test_snapshots_are_an_interval_apart(tmp_path, monkeypatch):
    clock = count(0.0, 4.0)  # every look at the clock is four seconds later
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    taken = []
    offered = snapshots(tmp_path, interval=10.0)
    monkeypatch.setattr(offered, "take", taken.append)
    for _ in range(2):
        offered.offer(dict)
    assert taken == []
    offered.offer(dict)  # 12 seconds after the start
    assert len(taken) == 1


def test_snapshots_cost_no_more_than_their_share_of_the_time(tmp_path, monkeypatch):
    now = spent = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    taken = snapshots(tmp_path, interval=1.0)

    def slow():
        nonlocal now, spent
        now, spent = now + 3.0, spent + 3.0  # a snapshot takes three seconds
        return {}

    for _ in range(500):
        now += 10.0  # an epoch takes ten
        taken.offer(slow)
    assert 0 < spent / now <= module.SHARE


# --- loops that stop and resume ---


def stop_after(epochs: int):
    """An on_epoch that dies when a later epoch comes: after the snapshot of the last one."""
    left = iter(range(epochs))
    return lambda *_: None if next(left, None) is not None else die()


def ignore(*_) -> None:
    """An on_epoch that does nothing."""


@pytest.mark.parametrize("adaptive", [False, True])
def test_diffusion_training_resumes_to_the_same_weights_and_history(tmp_path, adaptive):
    def train(on_epoch, resume=None):
        torch.manual_seed(7)  # the global stream must not matter
        objective = make_x0(objective_params("x0")) if adaptive else "seed"
        setup = make_setup(make_criterion(objective), rows=10, epochs=4, warmup_steps=2)
        if adaptive:
            setup = replace(setup, adaptive=AdaptiveWeight(0.5, 0.5, 3))
        model = build_denoiser(CONFIG, seed=0)
        history = train_diffusion(setup, model, list, on_epoch, resume)
        return history, model.state_dict()

    whole_history, whole_weights = train(ignore)
    with pytest.raises(Killed):
        train(stop_after(2), snapshots(tmp_path))
    seen = []
    history, weights = train(lambda rows, *_: seen.append(len(rows)), snapshots(tmp_path))
    assert seen == [3, 4]
    assert history == whole_history
    assert equal(weights, whole_weights)


def test_training_of_a_unet_with_dropout_resumes_to_the_same_weights(tmp_path):
    def train(global_seed, on_epoch, resume=None):
        setup, model = (
            make_setup(rows=10, epochs=4),
            build_denoiser(CONFIG | {"dropout": 0.5}, seed=0),
        )
        torch.manual_seed(global_seed)  # the global stream must not matter
        history = train_diffusion(setup, model, list, on_epoch, resume)
        return history, model.state_dict()

    whole_history, whole_weights = train(1, ignore)
    with pytest.raises(Killed):
        train(2, stop_after(2), snapshots(tmp_path))
    history, weights = train(3, ignore, snapshots(tmp_path))
    assert history == whole_history
    assert equal(weights, whole_weights)


@pytest.mark.parametrize("stop_accuracy", [None, 0.5])
def test_discriminator_training_resumes_to_the_same_result(tmp_path, stop_accuracy):
    changes = {"epochs": 4, "plateau_patience": 0, "stop_accuracy": stop_accuracy}
    setup = discriminator_setup(side(0, 30, 0.05), side(1, 30, 0.05), **changes)

    def fit(on_epoch, resume=None):
        return train_discriminator(setup, iter, on_epoch, resume)

    whole = fit(ignore)
    assert (len(whole.history) < 4) == (stop_accuracy is not None)
    if stop_accuracy is None:
        with pytest.raises(Killed):
            fit(stop_after(2), snapshots(tmp_path))
    else:
        fit(ignore, snapshots(tmp_path))  # it stopped early, and the crash came afterwards
    again = fit(ignore, snapshots(tmp_path))
    assert again.history == whole.history
    assert equal(again.best, whole.best)
    assert equal(again.final, whole.final)


def test_autoencoder_training_resumes_to_the_same_weights(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(12, 16, 16, 3), dtype=np.uint8)
    params = AUTOENCODER.model_copy(update={"epochs": 4})

    def train(on_epoch, resume=None):
        rows, identity = np.arange(12), lambda epochs: epochs
        return train_autoencoder(params, "hflip", images, rows, 0, CPU, identity, on_epoch, resume)

    whole = train(ignore)
    with pytest.raises(Killed):
        train(stop_after(2), snapshots(tmp_path))
    seen = []
    again = train(lambda epoch, _: seen.append(epoch), snapshots(tmp_path))
    assert seen == [3, 4]
    assert equal(again.state_dict(), whole.state_dict())


@pytest.mark.parametrize("lost", [False, True], ids=["scratch kept", "scratch lost"])
def test_files_of_latents_resume_at_the_row_after_the_last_snapshot(tmp_path, lost):
    latents = torch.randn(10, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    written = []

    def fill(resume, stop=99):
        done = RowProgress(resume)
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
    if lost:  # its rows are written again
        snapshots(tmp_path).scratch("b.pt").unlink()
    fill(snapshots(tmp_path))
    assert written[7:] == [("b.pt", start) for start in range(0 if lost else 4, 10, 2)]
    for name in ("a.pt", "b.pt"):
        assert torch.equal(torch.load(tmp_path / "out" / name, weights_only=True), latents)

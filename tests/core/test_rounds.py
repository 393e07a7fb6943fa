"""The names of a round's files, the published tree, and the rounds that a run still has."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import snapshot

from advloop.core.errors import UserError
from advloop.core.rounds import Round, check_exp_name, prune_rounds

WRITTEN = {
    "fake_latents.pt",
    "real_latents.pt",
    "discriminator/discriminator_best.pt",
    "discriminator/discriminator_final.pt",
    "discriminator/discriminator_history.csv",
    "discriminator/metrics.json",
    "discriminator/replay_latents.pt",
    "model/checkpoint_best.pt",
    "model/checkpoint_latest.pt",
    "model/metrics.csv",
    "model/metrics.json",
    "model/samples",
    "evaluation",
}


def test_a_round_has_a_folder_of_its_own():
    one = Round(Path("outputs/rounds"), 3)
    assert one.name == "iter_3"
    files = {one.fakes, one.reals, one.replay, one.history, one.metrics}
    files |= {one.discriminator_history, one.discriminator_metrics, one.samples, one.evaluation}
    files |= {one.discriminator("best"), one.discriminator("final")}
    files |= {one.checkpoint("best"), one.checkpoint("latest")}
    assert {path.relative_to("outputs/rounds/iter_3").as_posix() for path in files} == WRITTEN
    assert one.predicted == Path("outputs/predictions/iter_3/predicted_latents.pt")


def test_published_tree_has_the_names_of_the_reference(tmp_path: Path):
    one = Round(tmp_path, 0)
    one.samples.mkdir(parents=True)
    for epoch in (10, 5):
        (one.samples / f"epoch_{epoch:03d}_samples.png").touch()
    (one.samples / "notes.txt").touch()
    pairs = {str(to): file.relative_to(one.folder).as_posix() for file, to in one.published("me")}
    assert pairs == {
        "discriminator_iter_0/fake_latents.pt": "fake_latents.pt",
        "discriminator_iter_0/real_latents.pt": "real_latents.pt",
        "discriminator_iter_0/discriminator_best.pt": "discriminator/discriminator_best.pt",
        "discriminator_iter_0/discriminator_final.pt": "discriminator/discriminator_final.pt",
        "discriminator_iter_0/discriminator_history.csv": "discriminator/discriminator_history.csv",
        "checkpoints/me_iter_0_checkpoint_best.pt": "model/checkpoint_best.pt",
        "checkpoints/me_iter_0_checkpoint_latest.pt": "model/checkpoint_latest.pt",
        "samples/me_iter_0_epoch_005_samples.png": "model/samples/epoch_005_samples.png",
        "samples/me_iter_0_epoch_010_samples.png": "model/samples/epoch_010_samples.png",
        "me_metrics_iter_0.csv": "model/metrics.csv",
    }


def some_rounds(root: Path, *indices: int) -> Path:
    for index in indices:
        (root / f"iter_{index}/model").mkdir(parents=True)
        (root / f"iter_{index}/model/metrics.csv").touch()
    (root / ".gitignore").touch()
    (root / "iter_9").touch()  # a file
    (root / "iter_1_old").mkdir()
    (root / "iter_1_old/notes").touch()
    return root


def test_rounds_that_a_run_no_longer_has_are_removed_and_nothing_else(tmp_path: Path):
    root = some_rounds(tmp_path, 0, 1, 2, 11)
    assert [one.name for one in prune_rounds(root, 2)] == ["iter_0", "iter_1"]
    kept = {"iter_0/model/metrics.csv", "iter_1/model/metrics.csv"}
    assert set(snapshot(root)) == {*kept, ".gitignore", "iter_9", "iter_1_old/notes"}


def test_a_missing_round_is_refused_in_one_line_and_nothing_is_removed(tmp_path: Path):
    root = some_rounds(tmp_path, 0, 2, 3)
    before = snapshot(root)
    with pytest.raises(UserError, match=r"iter_1: not found; make it with `dvc repro`$"):
        prune_rounds(root, 3)
    assert snapshot(root) == before


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 64, 7])
def test_name_that_fits_in_a_file_name_is_taken(name: object):
    assert check_exp_name(name) == str(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a b", "a\n", "a;b", "ä", "x" * 65])
def test_name_that_does_not_fit_is_refused(name: str):
    with pytest.raises(ValueError, match=r"(?s)exp_name=.* may hold up to 64 letters"):
        check_exp_name(name)

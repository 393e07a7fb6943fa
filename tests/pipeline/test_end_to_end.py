"""Facts of a real run at scale tiny: two iterations, every stage for real."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from card_code import code_blocks, run_code
from conftest import (
    BIN,
    TINY,
    command,
    commit,
    copy_of,
    dvc,
    environment,
    make_project,
    must,
    ran,
    snapshot,
)
from diffusers.models.unets.unet_2d import UNet2DModel
from omegaconf import OmegaConf
from PIL import Image
from warm_python import CLIENT, warm_python, write_shim

from advloop.core.rounds import Round
from advloop.data.latents import read_scale
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import sample
from advloop.evaluation.agreement import select
from advloop.evaluation.results import VIEWS, read_results
from advloop.models.autoencoder import load_autoencoder
from advloop.models.codec import Codec
from advloop.models.denoiser import load_checkpoint
from advloop.params.diffusion import VariancePreservingParams
from kills import KINDS, Attempt, survive, undisturbed

pytestmark = pytest.mark.xdist_group("end_to_end")  # one worker: the run is made once

EXP, ITERATIONS, EPOCHS = "images", (0, 1), (1, 2)
LATENT = [4, 4, 4]
TERMS = ("noise_loss", "ddo_loss")  # of the default objective
SAMPLES = TINY["generate"]["num_samples"]  # type: ignore[index]  # a section


@dataclass(frozen=True)
class Run:
    project: Path
    printed: str

    @property
    def outputs(self) -> Path:
        return self.project / "outputs"

    def round(self, iteration: int) -> Round:
        return Round(self.outputs / "rounds", iteration)

    def log(self, stage: str) -> str:
        """What one stage printed."""
        parts = re.split(r"Running stage '([^']+)':\n", self.printed)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[stage]

    def locked(self, stage: str) -> dict[str, str]:
        """MD5 of each dependency and output of a stage in dvc.lock."""
        entry = yaml.safe_load((self.project / "dvc.lock").read_text())["stages"][stage]
        return {row["path"]: row["md5"] for kind in ("deps", "outs") for row in entry[kind]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """DVC and every stage in a fork of one Python, which spares the time of their imports."""
    project = make_project(tmp_path_factory.mktemp("real"))
    warm = project.parent / "bin"
    warm.mkdir()
    write_shim(warm / "python")
    warm_both = {"WARM_PYTHON": warm_python("dvc", "stages")}
    done = must(command(project, *CLIENT, str(BIN / "dvc"), "repro", **warm_both))
    shutil.rmtree(warm)
    return Run(project, done.stdout)


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def checkpoints(run: Run) -> dict[str, Path]:
    """By the model's name."""
    rounds = {f"iter_{i}": run.round(i).checkpoint("best") for i in ITERATIONS}
    return {"base": run.outputs / "base/checkpoint_best.pt", **rounds}


def rows_of(run: Run, iteration: int) -> pd.DataFrame:
    return pd.read_csv(run.round(iteration).history)


def test_published_tree_is_the_one_of_the_reference(run: Run) -> None:
    expected = {}
    for i in ITERATIONS:
        files, own = run.round(i), f"discriminator_iter_{i}"
        expected |= {
            f"{own}/real_latents.pt": files.reals,
            f"{own}/fake_latents.pt": files.fakes,
            f"{own}/discriminator_history.csv": files.discriminator_history,
            f"{own}/discriminator_best.pt": files.discriminator("best"),
            f"{own}/discriminator_final.pt": files.discriminator("final"),
            f"{EXP}_metrics_iter_{i}.csv": files.history,
        }
        for kind in ("best", "latest"):
            name = f"checkpoints/{EXP}_iter_{i}_checkpoint_{kind}.pt"
            expected[name] = files.checkpoint(kind)
        for epoch in EPOCHS:
            name = f"samples/{EXP}_iter_{i}_epoch_{epoch:03d}_samples.png"
            expected[name] = files.samples / f"epoch_{epoch:03d}_samples.png"
    found = snapshot(run.outputs / "published")
    assert found == {name: path.read_bytes() for name, path in expected.items()}
    everything = snapshot(run.outputs)
    assert not [file for file in everything if Path(file).name.startswith(".")], "temporary files"


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_latents_are_float32_n_c_h_w(run: Run, iteration: int) -> None:
    for path in (run.round(iteration).fakes, run.round(iteration).reals):
        latents = load(path)
        assert latents.dtype == torch.float32
        assert list(latents.shape) == [SAMPLES, *LATENT]
        assert bool(torch.isfinite(latents).all())
    assert not torch.equal(*(load(run.round(i).fakes) for i in ITERATIONS))


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_log_has_the_reference_line_of_every_discriminator_epoch(run: Run, iteration: int) -> None:
    number = r"\d+\.\d{4}"
    line = (
        rf"^Epoch (\d+)/2: Train Loss={number}, Train Acc={number}, "
        rf"Val Loss={number}, Val Acc={number}$"
    )
    assert re.findall(line, run.log(f"train_disc@{iteration}"), re.M) == ["1", "2"]


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_log_has_the_reference_block_of_every_diffusion_epoch(run: Run, iteration: int) -> None:
    number = r"\d+\.\d{6}"
    block = [r"^Epoch (\d+)/2", rf"Train Loss: {number}"]
    block += [rf"  {term}: {number}" for term in TERMS]
    block += [rf"Val Loss: {number}", *(rf"  val_{term}: {number}" for term in TERMS)]
    log = run.log(f"train_diffusion@{iteration}")
    assert re.findall("\n".join(block) + "$", log, re.M) == ["1", "2"]


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_metrics_csv_has_the_terms_in_training_and_validation(run: Run, iteration: int) -> None:
    rows = rows_of(run, iteration)
    assert list(rows["epoch"]) == list(EPOCHS)
    assert rows[[*TERMS, *(f"val_{term}" for term in TERMS)]].notna().all(axis=None)
    weight = float(yaml.safe_load((run.project / "params.yaml").read_text())["objective"]["weight"])
    loss = rows["noise_loss"] + weight * rows["ddo_loss"]
    assert loss.to_numpy() == pytest.approx(rows["loss"].to_numpy(), rel=1e-4)


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_discriminator_history_has_a_row_an_epoch(run: Run, iteration: int) -> None:
    rows = pd.read_csv(run.round(iteration).discriminator_history)
    assert list(rows["epoch"]) == [1, 2]
    accuracies = rows[["train_accuracy", "val_accuracy"]]
    assert accuracies.stack().between(0, 1).all()
    assert (rows[["train_loss", "val_loss"]] > 0).all(axis=None)


def test_final_model_is_the_one_that_the_views_agree_on_and_loads_in_diffusers(run: Run) -> None:
    rows = json.loads((run.project / "reports/metrics.json").read_text())["held_out"]
    models = ("base", "iter_0", "iter_1")
    rounds = [Round(run.outputs / "rounds", index) for index in ITERATIONS]
    best = select(read_results(run.outputs / "reals", run.outputs / "base", rounds, 0.1))
    scores = {k: v for k, v in rows[best].items() if not k.startswith("change_")}
    assert rows["final"] == scores | {"iteration": models.index(best) - 1}
    folder = run.outputs / "final/unet"
    unet = UNet2DModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    chosen = load(checkpoints(run)[best])["ema"]
    assert all(torch.equal(value, chosen[name]) for name, value in unet.state_dict().items())


def test_code_of_the_final_card_samples_what_the_selected_checkpoint_samples(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = json.loads((run.project / "reports/metrics.json").read_text())["held_out"]
    selected = list(checkpoints(run).values())[held_out["final"]["iteration"] + 1]
    final, params = run.outputs / "final", OmegaConf.load(run.project / "params.yaml")
    card = (final / "README.md").read_text()
    digest = hashlib.sha256((run.outputs / "data/images.npy").read_bytes()).hexdigest()
    assert digest in card
    (code,) = code_blocks(card)
    sampled = run_code(code, final, monkeypatch)
    process = process_of(VariancePreservingParams(**params.diffusion))
    noise = torch.randn(8, *LATENT, generator=torch.Generator().manual_seed(0))
    model = load_checkpoint(selected).eval()
    latents = sample(process, model, noise, params.generate.num_inference_steps)
    scaling = read_scale(run.outputs / "latents/stats.json")
    expected = Codec(load_autoencoder(run.outputs / "autoencoder"), *scaling).decode(latents)
    assert np.abs(sampled.astype(int) - expected).max() <= 1
    shutil.rmtree(final / "__pycache__", ignore_errors=True)


def test_report_has_every_model(run: Run) -> None:
    metrics = json.loads((run.project / "reports/metrics.json").read_text())
    assert set(metrics) == {"held_out", "exam", "training"}
    assert set(metrics["exam"]) == set(VIEWS)
    rows = metrics["held_out"]
    assert set(rows) == {"final", "reals", "autoencoder", "base", "iter_0", "iter_1"}
    assert rows["iter_0"]["kid_lite0"] != rows["base"]["kid_lite0"]
    assert set(metrics["training"]) == {"iter_0", "iter_1"}
    parts = (metrics["held_out"], metrics["training"])
    values = [v for part in parts for row in part.values() for v in row.values()]
    assert all(math.isfinite(value) for value in values)
    for score in ("pixels", "layout", "kid_lite0", "critic_gap", "image_critic_gap", "critic_auc"):
        for name in ("reals", "base", "iter_0", "iter_1", "final"):
            assert rows[name][f"{score}_ci95"] >= 0
    assert all(0 < rows[f"iter_{i}"]["viability_score"] < 1 for i in ITERATIONS)
    with Image.open(run.project / "reports/samples.png") as picture:
        strips = [16] * 4  # reals, base, iter_0, iter_1
        assert picture.height >= sum(strips)


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_best_checkpoint_is_the_latest_of_the_epoch_with_the_lowest_validation_loss(
    run: Run, iteration: int
) -> None:
    losses = rows_of(run, iteration)["val_loss"]
    files = run.round(iteration)
    best, latest = (load(files.checkpoint(kind))["ema"] for kind in ("best", "latest"))
    same = all(torch.equal(best[name], latest[name]) for name in latest)
    assert same == (losses.iloc[-1] < losses.iloc[:-1].min())


def test_no_image_of_the_tune_or_test_split_reaches_the_discriminator(run: Run) -> None:
    manifest = pd.read_csv(run.outputs / "data/manifest.csv")
    held_out = set(manifest[manifest["split"].isin(["tune", "test"])]["file"])
    assert held_out
    for i in ITERATIONS:
        reals = pd.read_csv(run.round(i).reals.with_suffix(".csv"))
        assert len(reals) == SAMPLES
        assert not set(reals["file"]) & held_out
        assert reals["file"].is_unique


def test_no_group_of_images_stands_in_two_splits(run: Run) -> None:
    manifest = pd.read_csv(run.outputs / "data/manifest.csv")
    assert (manifest.groupby("group")["split"].nunique() == 1).all()
    assert set(manifest["split"]) == {"train", "val", "tune", "test"}


def test_iteration_1_starts_from_the_best_checkpoint_of_iteration_0(run: Run) -> None:
    best = "outputs/rounds/iter_0/model/checkpoint_best.pt"
    made = run.locked("train_diffusion@0")[best]
    assert run.locked("generate@1")[best] == made
    assert run.locked("train_diffusion@1")[best] == made
    base = "outputs/base/checkpoint_best.pt"
    assert run.locked("generate@0")[base] == run.locked("train_base")[base] != made


def test_run_leaves_nothing_behind_but_what_git_should_hold(run: Run) -> None:
    status = must(command(run.project, "git", "status", "--porcelain")).stdout
    assert {line[3:] for line in status.splitlines()} == {"dvc.lock", "reports/"}


def test_bad_image_stops_the_run_in_one_line_and_spoils_nothing(run: Run, tmp_path: Path) -> None:
    project = copy_of(run.project, tmp_path / "copy")
    victim = project / "images/group_03/2.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-40])
    done = dvc(project, "repro")
    assert done.returncode != 0
    errors = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stdout
    assert "group_03/2.png" in errors[0]
    assert "Traceback" not in done.stdout
    assert ran(done) == {"prepare"}
    finished = snapshot(run.outputs)
    kept = {name: data for name, data in finished.items() if not name.startswith("data/")}
    assert snapshot(project / "outputs") == kept
    victim.write_bytes(whole)
    assert ran(must(dvc(project, "repro"))) == set()
    assert snapshot(project / "outputs") == finished


END = ("train_disc@1", "publish", "report")  # `select` starts slowly, and six times


def without_end(run: Run, folder: Path) -> Path:
    """A copy of the run in which DVC does not know the results of a training and the end."""
    project = copy_of(run.project, folder)
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    known = {name: body for name, body in lock["stages"].items() if name not in END}
    assert len(known) == len(lock["stages"]) - len(END)
    (project / "dvc.lock").write_text(yaml.dump(lock | {"stages": known}, sort_keys=False))
    commit(project, "Without its end")
    shutil.rmtree(project / ".dvc/cache/runs")  # from which DVC would take the results
    return project


def test_run_killed_in_every_way_in_another_folder_ends_with_the_same_bytes(
    run: Run, tmp_path: Path
) -> None:
    """In processes of their own, as users run them: first left alone, to know when to kill."""
    project, other = (without_end(run, tmp_path / name) for name in ("killed", "undisturbed"))
    course = undisturbed(Attempt(other, tmp_path / "log", environment(other)))
    env = environment(project) | {"ADVLOOP_SNAPSHOT_SECONDS": "0"}
    survival = survive(project, len(KINDS), course, seed=0, env=env, since="train_disc@1")
    assert sorted(one.kind.name for one in survival.strikes) == sorted(kind.name for kind in KINDS)
    assert all("dvc.lock" in one.torn for one in survival.strikes if one.kind.target == "lock")
    lock = (run.project / "dvc.lock").read_text()
    for copy in (project, other):
        assert yaml.safe_load((copy / "dvc.lock").read_text()) == yaml.safe_load(lock)
        for folder in ("outputs", "reports"):
            assert snapshot(copy / folder) == snapshot(run.project / folder)
    assert {path.name for path in (project / ".state").iterdir()} == {"locks", "timings"}

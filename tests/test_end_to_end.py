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
from conftest import (
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
from test_export import code_blocks, run_code

from advloop.autoencoder import Codec, load_autoencoder
from advloop.latent_files import read_scale
from advloop.params.diffusion import DiffusionParams
from advloop.sampling import sample_ddim
from advloop.schedule import alphas_cumprod_of
from advloop.unet import load_checkpoint
from kills import KINDS, Attempt, Course, survive, undisturbed

pytestmark = pytest.mark.xdist_group("end_to_end")  # one worker: the run is made once

EXP, ITERATIONS, EPOCHS = "plans", (0, 1), (1, 2)
LATENT = [4, 4, 4]
TERMS = ("noise_loss", "discriminator_loss", "viability_score")
SAMPLES = TINY["generate"]["num_samples"]  # type: ignore[index]  # a section


@dataclass(frozen=True)
class Run:
    project: Path
    printed: str
    course: Course

    @property
    def outputs(self) -> Path:
        return self.project / "outputs"

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
    project = make_project(tmp_path_factory.mktemp("real"))
    attempt = Attempt(project, project.parent / "log", environment(project))
    course = undisturbed(attempt)
    return Run(project, attempt.text(), course)


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def rows_of(run: Run, iteration: int) -> pd.DataFrame:
    return pd.read_csv(run.outputs / f"{EXP}_metrics_iter_{iteration}.csv")


def test_output_tree_is_the_one_of_the_reference(run: Run) -> None:
    expected = set()
    for i in ITERATIONS:
        expected |= {
            f"discriminator_iter_{i}/{file}"
            for file in (
                "real_latents.pt",
                "fake_latents.pt",
                "discriminator_history.csv",
                "discriminator_best.pt",
                "discriminator_final.pt",
            )
        }
        expected |= {f"checkpoints/{EXP}_iter_{i}_checkpoint_{k}.pt" for k in ("best", "latest")}
        expected |= {f"samples/{EXP}_iter_{i}_epoch_{e:03d}_samples.png" for e in EPOCHS}
        expected.add(f"{EXP}_metrics_iter_{i}.csv")
    found = snapshot(run.outputs)
    assert expected - set(found) == set()
    assert all(found[file] for file in expected)
    assert not [file for file in found if Path(file).name.startswith(".")], "temporary files stay"


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_latents_are_float32_n_c_h_w(run: Run, iteration: int) -> None:
    folder = run.outputs / f"discriminator_iter_{iteration}"
    for name in ("fake_latents.pt", "real_latents.pt"):
        latents = load(folder / name)
        assert latents.dtype == torch.float32
        assert list(latents.shape) == [SAMPLES, *LATENT]
        assert bool(torch.isfinite(latents).all())
    fakes = [load(run.outputs / f"discriminator_iter_{i}/fake_latents.pt") for i in ITERATIONS]
    assert not torch.equal(*fakes)


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
def test_metrics_csv_has_the_three_terms_in_training_and_validation(
    run: Run, iteration: int
) -> None:
    rows = rows_of(run, iteration)
    assert list(rows["epoch"]) == list(EPOCHS)
    columns = [*TERMS, *(f"val_{term}" for term in TERMS)]
    assert rows[columns].notna().all(axis=None)
    assert (rows[["viability_score", "val_viability_score"]].stack().between(0, 1)).all()
    weight = float(yaml.safe_load((run.project / "params.yaml").read_text())["objective"]["weight"])
    loss = rows["noise_loss"] + weight * rows["discriminator_loss"]
    assert loss.to_numpy() == pytest.approx(rows["loss"].to_numpy(), rel=1e-4)


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_discriminator_history_has_a_row_an_epoch(run: Run, iteration: int) -> None:
    rows = pd.read_csv(run.outputs / f"discriminator_iter_{iteration}/discriminator_history.csv")
    assert list(rows["epoch"]) == [1, 2]
    accuracies = rows[["train_accuracy", "val_accuracy"]]
    assert accuracies.stack().between(0, 1).all()
    assert (rows[["train_loss", "val_loss"]] > 0).all(axis=None)


def test_final_model_is_the_one_of_the_lowest_tune_kid_and_loads_in_diffusers(run: Run) -> None:
    rows = json.loads((run.project / "reports/metrics.json").read_text())["held_out"]
    models = ("base", "iter_0", "iter_1")
    best = min(models, key=lambda name: rows[name]["tune_kid_lite0"])
    figures = {k: v for k, v in rows[best].items() if not k.startswith("change_")}
    assert rows["final"] == figures | {"iteration": models.index(best) - 1}
    folder = run.outputs / "final/unet"
    unet = UNet2DModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    chosen = load(run.outputs / f"diffusion_{best}/checkpoint_best.pt")["ema"]
    assert all(torch.equal(value, chosen[name]) for name, value in unet.state_dict().items())


def test_code_of_the_final_card_draws_what_the_selected_checkpoint_draws(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    final, params = run.outputs / "final", OmegaConf.load(run.project / "params.yaml")
    card = (final / "README.md").read_text()
    digest = hashlib.sha256((run.outputs / "data/images.npy").read_bytes()).hexdigest()
    assert digest in card
    drawn = [run_code(code, final, monkeypatch) for code in code_blocks(card)]
    process = DiffusionParams(**params.diffusion)
    noise = torch.randn(8, *LATENT, generator=torch.Generator().manual_seed(0))
    latents = sample_ddim(
        load_checkpoint(run.outputs / "selected/iter_1.pt").eval(),
        noise,
        alphas_cumprod_of(process),
        process.prediction_type,
        params.generate.num_inference_steps,
    )
    scaling = read_scale(run.outputs / "latents/stats.json")
    expected = Codec(load_autoencoder(run.outputs / "autoencoder"), *scaling).decode(latents)
    assert len(drawn) == 2
    for images in drawn:
        pixels = np.stack([np.asarray(image) for image in images]).astype(int)
        assert np.abs(pixels - expected).max() <= 1
    shutil.rmtree(final / "__pycache__", ignore_errors=True)


def test_report_has_every_model(run: Run) -> None:
    metrics = json.loads((run.project / "reports/metrics.json").read_text())
    assert list(metrics) == ["held_out", "training"]
    rows = metrics["held_out"]
    assert set(rows) == {"final", "reals", "autoencoder", "base", "iter_0", "iter_1"}
    assert rows["iter_0"]["kid_lite0"] != rows["base"]["kid_lite0"]
    assert set(metrics["training"]) == {"iter_0", "iter_1"}
    values = [v for part in metrics.values() for row in part.values() for v in row.values()]
    assert all(math.isfinite(value) for value in values)
    for figure in ("kid_lite0", "coverage_lite0", "critic_gap", "critic_auc", "critic_accuracy"):
        for name in ("reals", "base", "iter_0", "iter_1", "final"):
            assert rows[name][f"{figure}_ci95"] >= 0
    with Image.open(run.project / "reports/samples.png") as picture:
        strips = [16] * 4  # reals, base, iter_0, iter_1
        assert picture.height >= sum(strips)


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_published_checkpoint_is_the_trained_one_and_holds_tensors_only(
    run: Run, iteration: int
) -> None:
    for kind in ("best", "latest"):
        published = run.outputs / f"checkpoints/{EXP}_iter_{iteration}_checkpoint_{kind}.pt"
        trained = run.outputs / f"diffusion_iter_{iteration}/checkpoint_{kind}.pt"
        assert published.read_bytes() == trained.read_bytes()
        weights = load(published)["ema"]
        assert weights
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


@pytest.mark.parametrize("iteration", ITERATIONS)
def test_best_checkpoint_is_the_latest_of_the_epoch_with_the_lowest_validation_loss(
    run: Run, iteration: int
) -> None:
    losses = rows_of(run, iteration)["val_loss"]
    folder = run.outputs / f"diffusion_iter_{iteration}"
    best, latest = (load(folder / f"checkpoint_{kind}.pt")["ema"] for kind in ("best", "latest"))
    same = all(torch.equal(best[name], latest[name]) for name in latest)
    assert same == (losses.iloc[-1] < losses.iloc[:-1].min())


def test_no_image_of_the_tune_or_test_split_reaches_the_discriminator(run: Run) -> None:
    manifest = pd.read_csv(run.outputs / "data/manifest.csv")
    held_out = set(manifest[manifest["split"].isin(["tune", "test"])]["file"])
    assert held_out
    for i in ITERATIONS:
        drawn = pd.read_csv(run.outputs / f"discriminator_iter_{i}/real_latents.csv")
        assert len(drawn) == SAMPLES
        assert not set(drawn["file"]) & held_out
        assert drawn["file"].is_unique


def test_no_group_of_images_stands_in_two_splits(run: Run) -> None:
    manifest = pd.read_csv(run.outputs / "data/manifest.csv")
    assert (manifest.groupby("group")["split"].nunique() == 1).all()
    assert set(manifest["split"]) == {"train", "val", "tune", "test"}


def test_iteration_1_starts_from_the_best_checkpoint_of_iteration_0(run: Run) -> None:
    best = "outputs/diffusion_iter_0/checkpoint_best.pt"
    made = run.locked("train_diffusion@0")[best]
    assert run.locked("generate@1")[best] == made
    assert run.locked("train_diffusion@1")[best] == made
    base = "outputs/diffusion_base/checkpoint_best.pt"
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


SECOND_HALF = re.compile(r".*@1(-.*)?|evaluate@.|select.*|export|report")


def test_second_half_killed_in_every_way_in_another_folder_ends_with_the_same_bytes(
    run: Run, tmp_path: Path
) -> None:
    project = copy_of(run.project, tmp_path / "copy")
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    first_half = {k: v for k, v in lock["stages"].items() if not SECOND_HALF.fullmatch(k)}
    assert 0 < len(first_half) < len(lock["stages"])
    (project / "dvc.lock").write_text(yaml.dump(lock | {"stages": first_half}, sort_keys=False))
    commit(project, "First half")
    shutil.rmtree(project / ".dvc/cache/runs")  # from which DVC would take the results
    env = environment(project) | {"ADVLOOP_SNAPSHOT_SECONDS": "0"}
    survival = survive(project, len(KINDS), run.course, seed=0, env=env, since="generate@1")
    assert sorted(one.kind.name for one in survival.strikes) == sorted(kind.name for kind in KINDS)
    assert all(one.torn for one in survival.strikes if one.kind.target == "lock")
    assert yaml.safe_load((project / "dvc.lock").read_text()) == lock
    for folder in ("outputs", "reports"):
        assert snapshot(project / folder) == snapshot(run.project / folder)
    assert {path.name for path in (project / ".state").iterdir()} == {"locks", "timings"}

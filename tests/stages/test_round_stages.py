"""What single stages read and write, on the tiny run of stage_folder.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_files import param
from conftest import snapshot
from safetensors.torch import load_file
from stage_folder import DISC, FAKE, LISTED, MODEL, PREDICTED, REAL, ROUND, TUNED, StageFolder

from advloop.data.dataset import load_dataset, read_manifest
from advloop.data.latents import read_scale
from advloop.evaluation.results import VIEWS
from advloop.models.autoencoder import load_autoencoder
from advloop.models.codec import Codec

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

SCORES = {"base": "base/evaluation/scores.json", "iter_0": f"{ROUND}/evaluation/scores.json"}
PUBLISHED = {
    "checkpoints/{}_iter_0_checkpoint_best.pt": TUNED,
    "checkpoints/{}_iter_0_checkpoint_latest.pt": f"{ROUND}/model/checkpoint_latest.pt",
    "discriminator_iter_0/discriminator_best.pt": DISC,
    "discriminator_iter_0/discriminator_final.pt": f"{ROUND}/discriminator/discriminator_final.pt",
    "discriminator_iter_0/discriminator_history.csv": f"{ROUND}/discriminator/"
    "discriminator_history.csv",
    "discriminator_iter_0/fake_latents.pt": FAKE,
    "discriminator_iter_0/real_latents.pt": REAL,
    "samples/{}_iter_0_epoch_001_samples.png": f"{ROUND}/model/samples/epoch_001_samples.png",
    "samples/{}_iter_0_epoch_002_samples.png": f"{ROUND}/model/samples/epoch_002_samples.png",
    "{}_metrics_iter_0.csv": f"{ROUND}/model/metrics.csv",
}


def test_drawn_reals_have_the_very_latents_that_the_codec_gives_their_images(good_stages: Path):
    dataset = load_dataset(good_stages / "data")
    scaling = read_scale(good_stages / "latents/stats.json")
    codec = Codec(load_autoencoder(good_stages / "autoencoder"), *scaling)
    listed = read_manifest(good_stages / LISTED)
    images = dataset.images[[dataset.files.index(row[0]) for row in listed]]
    found = torch.load(good_stages / REAL, weights_only=True)
    assert torch.equal(found, codec.encode(images))
    splits = [row[2] for row in listed]
    assert (splits.count("train"), splits.count("val"), len(splits)) == (16, 4, 20)


def test_which_views_count_does_not_follow_from_the_test_images(
    good_stages: Path, stages: StageFolder
):
    """It decides what is handed on, and these are reported."""
    dataset = load_dataset(stages.root / "data")
    images = np.array(dataset.images)
    images[dataset.rows("test")] = 255 - images[dataset.rows("test")]
    np.save(stages.root / "data/images.npy", images)
    stages.must("evaluate_base")
    made, exam, floor = stages.made(), "reals/exam.json", "reals/reals.json"
    assert made[exam] == (good_stages / exam).read_bytes()
    assert made[floor] != (good_stages / floor).read_bytes()


def test_generate_needs_no_training_latents(good_stages: Path, stages: StageFolder):
    (stages.root / "latents/train.pt").unlink()
    stages.must("generate")
    assert stages.made() == {FAKE: (good_stages / FAKE).read_bytes()}


def test_predict_writes_a_prediction_for_every_fake(good_stages: Path):
    predicted, fake = (
        torch.load(good_stages / path, weights_only=True) for path in (PREDICTED, FAKE)
    )
    assert predicted.shape == fake.shape
    assert not torch.equal(predicted, fake)


@pytest.mark.parametrize("stage", ["train_disc", "train_diffusion"])
def test_a_stage_of_training_writes_where_its_option_says(stages: StageFolder, stage: str):
    stages.must(stage, out="made/elsewhere")
    assert {path.split("/")[0] for path in stages.made()} == {"elsewhere"}
    assert not (stages.root / "iter_0").exists()
    assert not (stages.root / "iter_1").exists()


@pytest.mark.parametrize(
    ("stage", "option", "says"),
    [
        ("train_disc", "predicted", "train_disc.predicted_fraction=0.25 needs --predicted"),
        ("train_disc", "replay", "train_disc.replay_fraction=0.25 needs --replay"),
        ("train_diffusion", "discriminator", "objective.uses_discriminator=true needs --disc"),
    ],
)
def test_an_input_that_params_need_and_the_command_lacks_is_named(
    stages: StageFolder, stage: str, option: str, says: str
):
    outcome = stages.run(stage, **{option: None})
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: params.yaml: {says}")
    assert outcome.err.count("\n") == 1
    assert "`make params`" in outcome.err
    assert stages.made() == {}


@pytest.mark.parametrize("best", SCORES)
def test_select_exports_the_model_that_the_views_prefer_on_tune(stages: StageFolder, best: str):
    for model, path in SCORES.items():
        content = json.loads((stages.root / path).read_text())
        for score in content["scores"]:
            if score["metric"]["name"] in VIEWS:  # on test images the other one is better
                wins = (model == best) == (score["split"] == "tune")
                score["values"] = [0.1 if wins else 9.0] * 3
        (stages.root / path).write_text(json.dumps(content))
    exam = json.loads((stages.root / "reals/exam.json").read_text())
    for row in exam["rows"]:
        row["found"] = dict.fromkeys(row["found"], "sees")
    (stages.root / "reals/exam.json").write_text(json.dumps(exam))
    assert f"selected: {best}\n" in stages.must("select_model").out
    checkpoint = torch.load({"base": MODEL, "iter_0": TUNED}[best], weights_only=True)
    exported = load_file("made/final/unet/diffusion_pytorch_model.safetensors")
    assert exported.keys() == checkpoint["ema"].keys()
    assert all(torch.equal(exported[name], weights) for name, weights in checkpoint["ema"].items())
    assert f"`{best}`" in (stages.root / "made/final/README.md").read_text()


def test_publish_lays_out_the_tree_of_the_name_and_leaves_nothing_of_an_earlier_one(
    good_stages: Path, stages: StageFolder
):
    shutil.copytree(stages.root / ROUND, stages.root / "rounds/iter_1")
    shutil.copytree(good_stages / "published", stages.root / "made/published")
    stages.set({"exp_name": "new"})
    stages.must("publish")
    expected = {
        f"published/{name.format('new')}": (good_stages / path).read_bytes()
        for name, path in PUBLISHED.items()
    }
    assert stages.made() == expected
    assert set(snapshot(good_stages / "published")) == {name.format("images") for name in PUBLISHED}


@pytest.mark.parametrize("stage", ["select_model", "publish", "report"])
def test_rounds_that_the_run_no_longer_has_change_nothing_and_are_removed(
    good_stages: Path, stages: StageFolder, stage: str
):
    stages.must(stage)
    before = stages.made()
    shutil.copytree(stages.root / ROUND, stages.root / "rounds/iter_7")
    stages.must(stage)
    assert stages.made() == before
    assert snapshot(stages.root / "rounds") == snapshot(good_stages / "rounds")


def test_a_run_may_have_fewer_reals_than_fakes_and_says_so(stages: StageFolder):
    param("generate.num_samples", 60)(stages.root)
    outcome = stages.must("encode")
    assert "42 real images instead of 60: train has no more" in outcome.out

"""All stages at full scale: one step of each, in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import REPO, make_project, write_images
from omegaconf import OmegaConf
from PIL import Image
from stage_folder import FAKE, LISTED, MODEL, PREDICTED, REAL, ROUND, TUNED, USUAL, StageFolder

from advloop.data import latents
from advloop.data.dataset import Dataset
from advloop.evaluation.corruptions import CORRUPTIONS, GARBAGE
from advloop.evaluation.exam_report import read_report
from advloop.evaluation.results import VIEWS
from advloop.evaluation.scores import read_scores
from advloop.models.autoencoder import build_autoencoder
from advloop.models.denoiser import load_checkpoint
from advloop.params.data import AutoencoderParams

pytestmark = pytest.mark.xdist_group("stages")  # one worker: the full shapes are made once

SHAPE = [16, 32, 32]
PLAN = {"train": (2, 9), "val": (1, 2), "tune": (1, 6), "test": (2, 3)}  # groups, images of each
# What makes scale=full one step long. The autoencoder's inner width is changed, and no other shape.
ONE_STEP = """
scale=full num_iterations=1 precision=fp32 objective=ddo_weighted
autoencoder.width=16 autoencoder.epochs=1 autoencoder.batch_size=2 encode_dataset.augment=none
encode_dataset.batch_size=2 base.epochs=1 base.samples_per_epoch=2 base.batch_size=2
base.warmup_steps=0 train_diffusion.warmup_steps=0
generate.num_samples=5 generate.num_inference_steps=1 generate.batch_size=3
train_disc.epochs=1 train_disc.batch_size=2 train_disc.predicted_fraction=0.5
train_diffusion.epochs=1 train_diffusion.samples_per_epoch=2 train_diffusion.batch_size=2
train_diffusion.num_preview_samples=1 train_diffusion.preview_steps=1
evaluate.feature_size=32 evaluate.num_samples=6 evaluate.num_inference_steps=1
evaluate.base_num_inference_steps=2 evaluate.batch_size=3 evaluate.critic_epochs=2
"""

Reads = dict[str, set[str]]


def watch(patch: pytest.MonkeyPatch, reads: set[str]) -> None:
    """Note in ``reads`` the splits of images and the files of latents that a stage asks for."""
    rows, load = Dataset.rows, latents.load_tensor

    def noting_rows(self: Dataset, split: str) -> Any:
        reads.add(split)
        return rows(self, split)

    def noting_load(path: Path) -> torch.Tensor:
        reads.add(path.name)
        return load(path)

    patch.setattr(Dataset, "rows", noting_rows)
    patch.setattr(latents, "load_tensor", noting_load)


@pytest.fixture(scope="module")
def reads() -> Reads:
    """What each stage of ``full`` read, filled by that fixture."""
    return {}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, reads: Reads) -> Path:
    """A folder where every stage of scale=full has made one step."""
    project = make_project(tmp_path_factory.mktemp("full"))
    shutil.rmtree(project / "images")
    splits = [(split, each) for split, (groups, each) in PLAN.items() for _ in range(groups)]
    write_images(project / "images", 256, len(splits), max(each for _, each in splits))
    rows = ["file,group,split"]
    for group, (split, each) in zip(sorted((project / "images").iterdir()), splits, strict=True):
        images = sorted(group.iterdir())
        rows += [f"{group.name}/{image.name},{group.name},{split}" for image in images[:each]]
    (project / "images/manifest.csv").write_text("\n".join([*rows, ""]))
    with pytest.MonkeyPatch.context() as patch:
        place = StageFolder(project, patch)
        place.compose(*ONE_STEP.split())
        for stage in USUAL:
            with pytest.MonkeyPatch.context() as watching:
                watch(watching, reads.setdefault(stage, set()))
                first = {"iteration": 0, "replay": None} if stage == "train_disc" else {}
                place.must(stage, **first)
                place.keep()
    return project


@pytest.mark.usefixtures("full")
def test_each_stage_reads_its_own_sets_of_reals_alone(reads: Reads):
    assert reads["train_autoencoder"] == {"train", "val"}  # val: its PSNR
    assert reads["train_base"] == {"train.pt", "val.pt"}
    assert reads["generate"] == set()
    assert reads["predict"] == {"train.pt"}  # what its predictions start from
    assert reads["encode"] == {"train", "val", "train.pt", "val.pt"}
    assert reads["train_diffusion"] == {"train.pt", "val.pt", "fake_latents.pt"}
    assert reads["evaluate_base"] == {"train", "tune", "test", "train.pt", "test.pt"}
    assert reads["evaluate"] == {"train.pt"}  # memorisation; its reals are those of evaluate_base


def test_trained_models_can_be_imported_by_the_same_stages(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = StageFolder(tmp_path, monkeypatch)
    for name in ("data", "latents"):
        (tmp_path / name).symlink_to(full / name)
    load_checkpoint(full / MODEL).network.save_pretrained(tmp_path / "unet")
    shutil.copyfile(full / "params.yaml", tmp_path / "params.yaml")
    place.set(
        {"autoencoder": {"pretrained": f"{full}/autoencoder"}, "base": {"pretrained": "unet"}}
    )
    for stage in ("train_autoencoder", "train_base"):
        place.must(stage)
    weights = "autoencoder/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "made" / weights).read_bytes() == (full / weights).read_bytes()
    ours, theirs = (
        torch.load(path / MODEL, weights_only=True)["ema"] for path in (tmp_path / "made", full)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def tensor(path: Path) -> torch.Tensor:
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, torch.Tensor)
    return loaded


def test_latents_are_16_channels_of_32_by_32_float32_of_every_image(full: Path):
    counts = pd.read_csv(full / "data/manifest.csv")["split"].value_counts()
    assert dict(counts) == {split: groups * each for split, (groups, each) in PLAN.items()}
    files = {f"latents/{split}.pt": counts[split] for split in ("train", "val", "test")}
    files |= {FAKE: 5, PREDICTED: 5, REAL: len(pd.read_csv(full / LISTED))}
    for file, count in files.items():
        found = tensor(full / file)
        assert list(found.shape) == [count, *SHAPE], file
        assert found.dtype == torch.float32, file
        assert bool(torch.isfinite(found).all()), file


def test_unet_has_base_64_and_depth_4_in_every_checkpoint(full: Path):
    base, tuned, latest = (
        torch.load(full / path, weights_only=True)
        for path in (MODEL, TUNED, f"{ROUND}/model/checkpoint_latest.pt")
    )
    assert list(base["config"]["block_out_channels"]) == [64, 128, 256, 512]
    assert (base["config"]["layers_per_block"], base["config"]["sample_size"]) == (2, 32)
    assert 45e6 < sum(weights.numel() for weights in base["ema"].values()) < 65e6
    assert base["config"] == tuned["config"] == latest["config"]
    assert any(not torch.equal(base["ema"][name], tuned["ema"][name]) for name in base["ema"])
    assert set(latest["model"]) == set(latest["ema"]) == set(base["ema"])


def test_autoencoder_of_full_width_takes_a_gradient_through_16_channels_of_32_by_32():
    full = OmegaConf.load(REPO / "conf/scale/full.yaml").autoencoder
    model = build_autoencoder(AutoencoderParams(**OmegaConf.to_container(full)))
    pixels = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = model.encode(pixels)
    assert list(latents.shape) == [1, *SHAPE]
    (model.decode(latents).sample - pixels).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_preview_is_256_pixels_high(full: Path):
    (file,) = (full / ROUND / "model/samples").iterdir()
    assert file.name == "epoch_001_samples.png"
    with Image.open(file) as image:
        assert image.height == 256


def test_evaluation_writes_scores_of_floor_bound_base_and_round(full: Path):
    floor, bound, base, tuned = (
        {score.name for score in read_scores(full / path).scores}
        for path in (
            "reals/reals.json",
            "reals/autoencoder.json",
            "base/evaluation/scores.json",
            f"{ROUND}/evaluation/scores.json",
        )
    )
    assert bound == floor <= base <= tuned
    assert {"kid_lite0", "critic_gap", "pixels", "layout", "image_critic_gap"} <= floor
    assert "tune_kid_lite0" in base
    assert "test_noise_loss" in base
    assert tuned - base == {"viability_score"}  # of the round's discriminator
    exam = read_report(full / "reals/exam.json")
    assert exam.figures == sorted(VIEWS)
    assert {row.case for row in exam.rows} == {"decoded noise", *GARBAGE, *CORRUPTIONS}
    table = OmegaConf.load(full / "metrics.json")
    base_rows = {"base", "base_few_steps"}
    assert set(table.held_out) == {"reals", "autoencoder", "iter_0", "final"} | base_rows
    steps = {name: table.held_out[name].network_calls for name in ("iter_0", *base_rows)}
    assert steps == {"iter_0": 1, "base_few_steps": 1, "base": 2}
    assert {"disc_val_accuracy", "diffusion_val_loss"} <= set(table.training.iter_0)

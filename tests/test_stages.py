"""Facts of the stage scripts at full scale: one step of each, in this process."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import REPO, compose, make_project, write_images
from omegaconf import OmegaConf
from PIL import Image
from stage_runner import ROUND, START, run_stage

from advloop.dataset import Dataset
from advloop.unet import load_checkpoint

pytestmark = pytest.mark.xdist_group("stages")  # one worker: the full shapes are made once

SHAPE = [16, 32, 32]
PLAN = {"train": (2, 9), "val": (1, 2), "tune": (1, 6), "test": (2, 3)}  # groups, images of each

# What makes scale=full one step long; no shape is touched.
ONE_STEP: dict[str, Any] = {
    "precision": "fp32",
    "data": {"source": "images", "val_fraction": 0.2, "test_fraction": 0.2},
    "autoencoder": {"epochs": 1, "batch_size": 2},
    "encode_dataset": {"augment": "none", "batch_size": 2},
    "base": {"epochs": 1, "samples_per_epoch": 2, "batch_size": 2},
    "generate": {"num_samples": 5, "num_inference_steps": 1, "batch_size": 3},
    "encode": {"batch_size": 2},
    "train_disc": {"epochs": 1, "batch_size": 2},
    "train_diffusion": {
        "epochs": 1,
        "samples_per_epoch": 2,
        "batch_size": 2,
        "num_preview_samples": 1,
        "preview_steps": 1,
    },
    "evaluate": {
        "feature_size": 32,
        "num_samples": 6,
        "num_seeds": 3,
        "num_inference_steps": 1,
        "batch_size": 3,
    },
}

STAGES = (
    START
    | ROUND
    | {
        "evaluate_reals": {
            "data": "data",
            "autoencoder": "autoencoder",
            "latents": "latents",
            "out": "reals",
        },
        "evaluate": {
            "name": "iter_0",
            "model": "diffusion/checkpoint_best.pt",
            "latents": "latents",
            "autoencoder": "autoencoder",
            "reals": "reals/reals.pt",
            "manifest": "data/manifest.csv",
            "previous": "reals/reals.json",
            "discriminator": "discriminator/discriminator_best.pt",
            "disc-metrics": "discriminator/metrics.json",
            "disc-history": "discriminator/discriminator_history.csv",
            "diffusion-metrics": "diffusion/metrics.json",
            "diffusion-history": "diffusion/metrics.csv",
            "out": "evaluation/iter_0.json",
        },
    }
)


Reads = dict[str, set[str]]


def watch_splits(monkeypatch: pytest.MonkeyPatch, reads: set[str]) -> None:
    """Note in ``reads`` which splits of images and which files of latents a stage asks for."""
    rows = Dataset.rows

    def noting_rows(self: Dataset, split: str) -> Any:
        reads.add(split)
        return rows(self, split)

    monkeypatch.setattr(Dataset, "rows", noting_rows)
    for module in ("train_base", "generate", "train_diffusion", "evaluate"):
        script = importlib.import_module(module)
        load = script.load_latents

        def noting_load(path: Path, *args: Any, load: Any = load) -> Any:
            reads.add(path.name)
            return load(path, *args)

        monkeypatch.setattr(script, "load_latents", noting_load)


@pytest.fixture(scope="module")
def reads() -> Reads:
    """What each stage of ``full`` read, filled by that fixture."""
    return {}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, reads: Reads) -> Path:
    """A folder where every stage of scale=full has made one step."""
    project = make_project(tmp_path_factory.mktemp("full"))
    shutil.copyfile(REPO / "conf/scale/full.yaml", project / "conf/scale/tiny.yaml")
    compose(project)
    composed = OmegaConf.load(project / "params.yaml")
    assert composed.scale == "full"
    OmegaConf.set_struct(composed, True)  # a parameter that does not exist is an error
    OmegaConf.save(OmegaConf.merge(composed, ONE_STEP), project / "params.yaml")
    shutil.rmtree(project / "images")
    rows = ["file,group,split"]
    splits = [(split, each) for split, (groups, each) in PLAN.items() for _ in range(groups)]
    write_images(project / "images", 256, len(splits), max(each for _, each in splits))
    for group, (split, each) in zip(sorted((project / "images").iterdir()), splits, strict=True):
        images = sorted(group.iterdir())
        rows += [f"{group.name}/{image.name},{group.name},{split}" for image in images[:each]]
    (project / "images/manifest.csv").write_text("\n".join([*rows, ""]))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        for stage in STAGES:
            with monkeypatch.context() as watching:
                watch_splits(watching, reads.setdefault(stage, set()))
                run_stage(stage, STAGES[stage], watching)
    return project


def test_each_stage_reads_its_own_sets_of_reals_alone(full: Path, reads: Reads) -> None:
    assert (full / "data").is_dir()
    assert reads["train_autoencoder"] == {"train", "val"}  # val: its PSNR
    assert reads["train_base"] == {"train.pt", "val.pt"}
    assert reads["generate"] == {"train.pt"}  # what its one-step predictions start from
    assert reads["encode"] == {"train", "val"}
    assert reads["train_diffusion"] == {"train.pt", "val.pt", "fake_latents.pt"}
    assert reads["evaluate_reals"] == {"train", "tune", "test"}  # train: the floor
    assert reads["evaluate"] == {"test.pt", "train.pt"}  # train: memorisation


def test_trained_models_can_be_imported_by_the_same_stages(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data", "latents"):
        (tmp_path / name).symlink_to(full / name)
    load_checkpoint(full / "base/checkpoint_best.pt").unet.save_pretrained(tmp_path / "unet")
    params = OmegaConf.load(full / "params.yaml")
    params.autoencoder.pretrained = str(full / "autoencoder")
    params.base.pretrained = "unet"
    OmegaConf.save(params, tmp_path / "params.yaml")
    for stage in ("train_autoencoder", "train_base"):
        run_stage(stage, STAGES[stage], monkeypatch)
    weights = "autoencoder/diffusion_pytorch_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (full / weights).read_bytes()
    ours, theirs = (
        torch.load(folder / "base/checkpoint_best.pt", weights_only=True)["ema"]
        for folder in (tmp_path, full)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def tensor(path: Path) -> torch.Tensor:
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, torch.Tensor)
    return loaded


def test_full_scale_latents_are_16_channels_of_32_by_32_float32(full: Path) -> None:
    files = ["fake_latents.pt", "predicted_latents.pt", "real_latents.pt"]
    files += [f"latents/{split}.pt" for split in ("train", "val", "test")]
    for file in files:
        latents = tensor(full / file)
        assert list(latents.shape[1:]) == SHAPE, file
        assert latents.dtype == torch.float32, file
        assert bool(torch.isfinite(latents).all()), file
    assert len(tensor(full / "fake_latents.pt")) == 5
    assert len(tensor(full / "predicted_latents.pt")) == 5
    assert len(tensor(full / "real_latents.pt")) == len(pd.read_csv(full / "real_latents.csv"))


def test_full_scale_splits_hold_every_image_once(full: Path) -> None:
    manifest = pd.read_csv(full / "data/manifest.csv")
    counts = manifest["split"].value_counts()
    assert dict(counts) == {split: groups * each for split, (groups, each) in PLAN.items()}
    for split in ("train", "val", "test"):
        assert len(tensor(full / f"latents/{split}.pt")) == counts[split]


def test_full_scale_unet_has_base_64_and_depth_4(full: Path) -> None:
    content = torch.load(full / "diffusion/checkpoint_best.pt", weights_only=True)
    assert list(content["config"]["block_out_channels"]) == [64, 128, 256, 512]
    assert content["config"]["layers_per_block"] == 2
    assert content["config"]["sample_size"] == 32
    assert 45e6 < sum(weights.numel() for weights in content["ema"].values()) < 65e6


def test_full_scale_checkpoints_share_one_architecture_and_differ_in_weights(full: Path) -> None:
    base, tuned = (
        torch.load(full / folder / "checkpoint_best.pt", weights_only=True)
        for folder in ("base", "diffusion")
    )
    assert base["config"] == tuned["config"]
    assert any(not torch.equal(base["ema"][name], tuned["ema"][name]) for name in base["ema"])
    latest = torch.load(full / "diffusion/checkpoint_latest.pt", weights_only=True)
    assert set(latest["model"]) == set(latest["ema"]) == set(base["ema"])


def test_full_scale_preview_is_one_256_pixel_image(full: Path) -> None:
    (file,) = (full / "diffusion/samples").iterdir()
    assert file.name == "epoch_001_samples.png"
    with Image.open(file) as image:
        assert image.height == 256
        assert image.width >= 256


def test_full_scale_evaluation_adds_its_row_below_the_floor(full: Path) -> None:
    rows = OmegaConf.load(full / "evaluation/iter_0.json")
    assert set(rows) == {"reals", "autoencoder", "iter_0"}
    assert {"kid_lite0", "kid_lite0_ci95", "test_noise_loss", "disc_val_accuracy"} <= set(
        rows["iter_0"]
    )

"""All stages, once, on images of two classes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_project
from stage_folder import DISC, MODEL, PARAMS, StageFolder, run_all
from test_export import code_blocks, run_code

import train_disc
from advloop.autoencoder import Codec, load_autoencoder
from advloop.classes import load_classes
from advloop.core.io import read_json
from advloop.latent_files import read_scale
from advloop.params.diffusion import DiffusionParams
from advloop.params.loader import Params
from advloop.sampling import sample_ddim
from advloop.schedule import alphas_cumprod_of
from advloop.unet import load_checkpoint, told

pytestmark = pytest.mark.xdist_group("class_stages")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of six groups of day and four of night, in which every stage has run."""
    project = make_project(tmp_path_factory.mktemp("classes"))
    for index, group in enumerate(sorted((project / "images").iterdir())):
        place = project / "images" / ("day" if index < 6 else "night")
        place.mkdir(exist_ok=True)
        group.rename(place / group.name)
    with pytest.MonkeyPatch.context() as patch:
        stages = StageFolder(project, patch)
        stages.set(PARAMS)
        stages.set({"data": {"classes": "folders"}, "generate": {"num_samples": 30}})
        run_all(stages)
    return project


@pytest.fixture
def stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    return StageFolder(root, monkeypatch)


def shares(labels: list[Any]) -> dict[Any, float]:
    return {name: count / len(labels) for name, count in Counter(labels).items()}


def test_images_latents_and_both_networks_know_the_classes(root: Path) -> None:
    rows = [line.split(",") for line in (root / "data/manifest.csv").read_text().split()]
    assert rows[0] == ["file", "group", "split", "class"]
    assert shares([row[3] for row in rows[1:]]) == {"day": 0.6, "night": 0.4}
    classes = load_classes(root / "latents")
    assert classes is not None
    assert classes.names == ("day", "night")
    for split, labels in classes.labels.items():
        latents = torch.load(root / f"latents/{split}.pt", weights_only=True)
        expected = [row[3] == "night" for row in rows[1:] if row[2] == split]
        assert labels.tolist() == expected * (len(latents) // len(expected))
    assert load_checkpoint(root / MODEL).num_classes == 2
    assert load_checkpoint(root / "diffusion/checkpoint_best.pt").num_classes == 2
    disc = torch.load(root / DISC, weights_only=True)
    assert disc["config"]["num_classes"] == 2
    assert disc["discriminator"]["class_vectors.weight"].abs().sum() > 0, "it has learnt"


def test_reals_and_fakes_are_matched_per_class_with_replay_and_predictions(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    train = train_disc.train_discriminator

    def noting(settings: Any, model: Any, *sides: Any) -> Any:
        seen.extend(sides[:2])
        return train(settings, model, *sides)

    monkeypatch.setattr(train_disc, "train_discriminator", noting)
    outcome = stages.run("train_disc", out="made/again", metrics="made/again/metrics.json")
    assert outcome.status == 0, outcome
    assert "replayed" in outcome.out
    for side in seen:
        real, fake = (Counter(side.labels[side.real == kind].tolist()) for kind in (1, 0))
        assert real == fake
        assert set(real) == {0, 1}


def test_every_stage_makes_the_same_bytes_again(stages: StageFolder) -> None:
    for stage, out, made in (
        ("generate", "again.pt", "fake.pt"),
        ("encode", "again_real.pt", "real.pt"),
    ):
        other = {"predicted": "made/again_predicted.pt"} if stage == "generate" else {}
        if stage == "encode":
            other = {"manifest": "made/again.csv"}
        outcome = stages.run(stage, out=f"made/{out}", **other)
        assert outcome.status == 0, outcome
        assert (stages.root / "made" / out).read_bytes() == (stages.root / made).read_bytes()


def test_evaluation_measures_each_class_and_the_floor(root: Path) -> None:
    rows = read_json(root / "evaluation/base.json")
    assert {"class_kid_encoder", "class_kid_encoder_ci95"} <= set(rows["base"])
    assert "class_kid_encoder" in rows["autoencoder"]


def test_card_of_the_export_draws_what_this_project_draws_of_each_class(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = stages.root
    assert json.loads((root / "final/classes.json").read_text()) == ["day", "night"]
    (code,) = code_blocks((root / "final/README.md").read_text())
    params = Params.load()
    process = params.section("diffusion", DiffusionParams)
    denoiser = load_checkpoint(root / MODEL).eval()
    noise = torch.randn(8, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    latents = sample_ddim(
        told(denoiser, torch.arange(8) % 2),
        noise,
        alphas_cumprod_of(process),
        process.prediction_type,
        params.content.generate.num_inference_steps,
    )
    scaling = read_scale(root / "latents/stats.json")
    expected = Codec(load_autoencoder(root / "autoencoder"), *scaling).decode(latents)
    drawn = run_code(code, root / "final", monkeypatch)
    assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("stage", ["generate", "train_diffusion", "evaluate"])
def test_model_without_classes_is_refused_in_one_line(stages: StageFolder, stage: str) -> None:
    content = torch.load(stages.root / MODEL, weights_only=True)
    content["config"].pop("num_class_embeds")
    content["ema"] = {k: v for k, v in content["ema"].items() if "class_embedding" not in k}
    torch.save(content, stages.root / "plain.pt")
    outcome = stages.run(stage, model="plain.pt")
    assert outcome.status == 1
    assert "plain.pt: knows 0 classes, but this run's images have 2" in outcome.err
    assert len(outcome.err.splitlines()) == 1

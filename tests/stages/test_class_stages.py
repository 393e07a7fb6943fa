"""All stages, once, on images of two classes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_files import edited, resaved
from card_code import code_blocks, run_code
from conftest import make_project
from stage_folder import CHOICES, DISC, FAKE, MODEL, STAGES, TUNED, StageFolder, run_all

import train_diffusion
import train_disc
from advloop.data.classes import load_classes
from advloop.data.latents import read_scale
from advloop.data.shares import held_out_fakes
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import condition_on_labels, sample
from advloop.evaluation.scores import read_scores
from advloop.models.autoencoder import load_autoencoder
from advloop.models.codec import Codec
from advloop.models.denoiser import load_checkpoint
from advloop.params.diffusion import read_diffusion
from advloop.params.loader import Params
from advloop.training.diffusion import Setup
from advloop.training.discriminator_data import DiscData
from advloop.training.opponent import Opponent

pytestmark = pytest.mark.xdist_group("class_stages")

CLASSES = ("data.classes=folders", "generate.num_samples=30")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of six groups of day and four of night, in which every stage has run."""
    project = make_project(tmp_path_factory.mktemp("classes"), iterations=1)
    for index, group in enumerate(sorted((project / "images").iterdir())):
        place = project / "images" / ("day" if index < 6 else "night")
        place.mkdir(exist_ok=True)
        group.rename(place / group.name)
    with pytest.MonkeyPatch.context() as patch:
        stages = StageFolder(project, patch)
        stages.compose(*CHOICES, *CLASSES)
        run_all(stages)
    return project


@pytest.fixture
def stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    return StageFolder(root, monkeypatch)


def shares(labels: list[Any]) -> dict[Any, float]:
    return {name: count / len(labels) for name, count in Counter(labels).items()}


def test_images_latents_and_both_networks_know_the_classes(root: Path):
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
    assert load_checkpoint(root / TUNED).num_classes == 2
    disc = torch.load(root / DISC, weights_only=True)
    assert disc["config"]["num_classes"] == 2
    assert disc["discriminator"]["class_vectors.weight"].abs().sum() > 0, "it has learnt"


def test_reals_and_fakes_are_matched_per_class_with_replay_and_predictions(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    train = train_disc.train_discriminator

    def noting(*given: Any) -> Any:
        parts = [part for one in given for part in (one, *getattr(one, "__dict__", {}).values())]
        seen.extend(part for part in parts if isinstance(part, DiscData))
        return train(*given)

    monkeypatch.setattr(train_disc, "train_discriminator", noting)
    assert re.search(r"[1-9]\d* predicted, [1-9]\d* replayed", stages.must("train_disc").out)
    assert len(seen) == 2
    for side in seen:
        real, fake = (Counter(side.labels[side.real == kind].tolist()) for kind in (1, 0))
        assert real == fake
        assert set(real) == {0, 1}


def test_adversarial_plays_with_samples_of_the_classes(
    root: Path, stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    sample = Opponent._sample

    def noting(self: Opponent, model: Any, noise: Any, labels: torch.Tensor) -> torch.Tensor:
        drawn.extend(labels.tolist())
        return sample(self, model, noise, labels)

    monkeypatch.setattr(Opponent, "_sample", noting)
    before = (root / "params.yaml").read_text()
    few = ["objective.samples_per_step=4", "generate.num_inference_steps=2"]
    few += [
        "discriminator.channels=[8]",
        "train_diffusion.epochs=1",
        "train_diffusion.warmup_steps=1",
    ]
    few += ["train_diffusion.samples_per_epoch=192"]
    stages.compose("objective=adversarial", *CLASSES, *few)
    stages.must("train_disc", iteration=0, replay=None, predicted=None, out="made/disc")
    best = root / "made/disc/discriminator_best.pt"
    stages.must("train_diffusion", discriminator=best, out="made/adversarial")
    (root / "params.yaml").write_text(before)
    assert torch.load(best, weights_only=True)["config"]["num_classes"] == 2
    assert set(drawn) == {0, 1}
    labels = load_classes(root / "latents").labels["train"]
    assert sum(drawn) / len(drawn) == pytest.approx(float(labels.float().mean()), abs=0.2)


def test_neon_trains_on_the_fakes_of_each_class_with_their_labels(
    root: Path, stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    train = train_diffusion.train_diffusion

    def noting(setup: Setup, *given: Any) -> Any:
        seen.append(setup.train)
        return train(setup, *given)

    monkeypatch.setattr(train_diffusion, "train_diffusion", noting)
    before = (root / "params.yaml").read_bytes()
    stages.compose("objective=neon", "train_diffusion.epochs=2", *CLASSES)
    stages.must("train_diffusion", discriminator=None)
    (root / "params.yaml").write_bytes(before)
    classes = load_classes(root / "latents")
    assert classes is not None
    fakes = torch.load(root / FAKE, weights_only=True)
    held = held_out_fakes(len(fakes))
    labels = classes.fake_labels(len(fakes), Params.load().at("seed"), 0)
    assert set(labels[held:].tolist()) == {0, 1}
    assert torch.equal(seen[0].latents, fakes[held:])
    assert torch.equal(seen[0].labels, labels[held:])


@pytest.mark.parametrize("stage", ["generate", "predict", "encode"])
def test_latents_of_a_round_have_the_same_bytes_again(stages: StageFolder, stage: str):
    stages.must(stage)
    made = Path(STAGES[stage]["out"])
    assert made.read_bytes() == made.relative_to("made").read_bytes()


@pytest.mark.parametrize(
    "path", ["reals/reals.json", "reals/autoencoder.json", "base/evaluation/scores.json"]
)
def test_evaluation_measures_each_class_of_floor_bound_and_model(root: Path, path: str):
    assert len(read_scores(root / path).get("class_kid").values) == 3


def test_card_of_the_export_samples_of_each_class_what_this_project_samples(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    root, final = stages.root, stages.root / "made/final"
    selected = re.search("^selected: (.*)$", stages.must("select_model").out, re.M)
    assert selected
    assert json.loads((final / "classes.json").read_text()) == ["day", "night"]
    (code,) = code_blocks((final / "README.md").read_text())
    params = Params.load()
    denoiser = load_checkpoint(root / {"base": MODEL, "iter_0": TUNED}[selected[1]]).eval()
    noise = torch.randn(8, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    latents = sample(
        process_of(read_diffusion(params)),
        condition_on_labels(denoiser, torch.arange(8) % 2),
        noise,
        params.at("generate.num_inference_steps"),
    )
    scaling = read_scale(root / "latents/stats.json")
    expected = Codec(load_autoencoder(root / "autoencoder"), *scaling).decode(latents)
    sampled = run_code(code, final, monkeypatch)
    assert np.abs(sampled.astype(int) - expected.astype(int)).max() <= 1


def without_classes(content: dict[str, Any]) -> dict[str, Any]:
    config = {k: v for k, v in content["config"].items() if k != "num_class_embeds"}
    return {"config": config, "ema": {k: v for k, v in content["ema"].items() if "class_" not in k}}


@pytest.mark.parametrize(
    "stage", ["evaluate_base", "generate", "predict", "train_diffusion", "evaluate"]
)
def test_model_without_classes_is_refused_in_one_line(stages: StageFolder, stage: str):
    plain = stages.root / "plain.pt"
    plain.write_bytes((stages.root / MODEL).read_bytes())
    resaved("plain.pt", without_classes)(stages.root)
    outcome = stages.run(stage, model="plain.pt")
    assert outcome.status == 1
    assert outcome.err.startswith("error: plain.pt: knows 0 classes, but this run's images have 2")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("evaluate_base", "manifest.csv: has 0 classes, but the latents have 2"),
        ("select_model", "checkpoint_best.pt: knows 2 classes, but the images have 0"),
    ],
)
def test_images_without_classes_are_refused_in_one_line(stages: StageFolder, stage: str, says: str):
    manifest = stages.root / "data/manifest.csv"
    before = manifest.read_text()
    edited("data/manifest.csv", lambda text: re.sub(",[a-z]+$", "", text, flags=re.M))(stages.root)
    outcome = stages.run(stage)
    manifest.write_text(before)
    assert outcome.status == 1
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1

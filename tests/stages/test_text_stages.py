"""All stages, once, on images with captions."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from conftest import make_project
from safetensors.torch import load_file
from stage_folder import DISC, MODEL, TUNED, StageFolder, run_all
from tiny_autoencoders import tiny_autoencoder
from tiny_denoisers import tiny_denoiser
from tiny_texts import TOKENS, WIDTH, save_encoder, save_text_unet

from advloop.data.classes import load_classes
from advloop.evaluation.scores import read_scores
from advloop.models.architectures import TEXT_UNET
from advloop.models.caption_table import save_captions

pytestmark = pytest.mark.xdist_group("text_stages")

OPTIONS = (
    "data.captions=words",
    "data.text_encoder=sd",
    "base.pretrained=sd",
    "autoencoder.pretrained=sd",
    "autoencoder.factor=2",
    "diffusion.prediction_type=epsilon",
    "diffusion.beta_schedule=scaled_linear",
    "objective=adversarial",
    "objective.samples_per_step=4",
    "objective.gradient_steps=1",
    "generate.num_inference_steps=2",
    "generate.guidance_scale=1.0",
    "evaluate.guidance_scale=1.5",
    "train_diffusion.epochs=1",
    "train_diffusion.samples_per_epoch=32",
    "train_diffusion.warmup_steps=0",
    "evaluate.features=encoder",
)


def caption(group: str, name: str) -> str:
    """Different ones, but for a few that several images share."""
    return 'a square, or "two"' if name == "0" else f"square {name} of {group[-2:]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("texts"), iterations=1)
    with (project / "images/manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "group", "words"])
        for path in sorted((project / "images").glob("*/*.png")):
            group = path.parent.name
            writer.writerow([f"{group}/{path.name}", group, caption(group, path.stem)])
    save_text_unet(save_encoder(project / "sd"))
    tiny_autoencoder("AutoencoderKL").save_pretrained(project / "sd/vae")
    (project / "sd/scheduler").mkdir()
    scheduler = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear"}
    scheduler |= {"beta_start": 0.00085, "beta_end": 0.012}
    (project / "sd/scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.MonkeyPatch.context() as patch:
        stages = StageFolder(project, patch)
        stages.compose(*OPTIONS)
        run_all(stages, captions=True)
    return project


@pytest.fixture
def stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    return StageFolder(root, monkeypatch)


def test_images_latents_and_network_know_the_captions_and_the_discriminator_does_not(root: Path):
    listed = json.loads((root / "data/captions.json").read_text())
    files = [line.split(",")[0] for line in (root / "data/manifest.csv").read_text().split()[1:]]
    assert listed == [caption(*file.removesuffix(".png").split("/")) for file in files]
    classes = load_classes(root / "latents")
    assert classes is not None
    assert classes.captions
    assert classes.names == tuple(sorted(set(listed)))
    splits = [line.split(",")[2] for line in (root / "data/manifest.csv").read_text().split()[1:]]
    for split, labels in classes.labels.items():
        own = [text for text, one in zip(listed, splits, strict=True) if one == split]
        assert [classes.names[label] for label in labels] == own * (len(labels) // len(own))
    for checkpoint in (MODEL, TUNED):
        content = torch.load(root / checkpoint, weights_only=True)
        assert content["config"]["_class_name"] == TEXT_UNET
    assert "num_classes" not in torch.load(root / DISC, weights_only=True)["config"]


def test_the_chosen_model_is_a_pipeline_of_stable_diffusion_with_the_weights_of_its_parts(
    stages: StageFolder,
):
    final = stages.root / "final"
    index = json.loads((final / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [None, None]
    (unet,) = (final / "unet").glob("*.safetensors")
    assert load_file(unet).keys() == tiny_denoiser("text unet").weights().keys()
    original = load_file(stages.root / "sd/text_encoder/model.safetensors")
    copied = load_file(final / "text_encoder/model.safetensors")
    assert all(torch.equal(copied[name], tensor) for name, tensor in original.items())
    card = (final / "README.md").read_text()
    assert "pipeline_tag: text-to-image" in card
    (shown,) = re.findall(r"pipeline\(\[(.*?)\] \* 8", card)
    assert re.fullmatch("'square [1-5] of [0-9]{2}'", shown)


@pytest.mark.parametrize("path", ["reals/reals.json", "base/evaluation/scores.json"])
def test_no_score_is_by_caption(root: Path, path: str):
    names = {one.metric.name for one in read_scores(root / path).scores}
    assert "pixels" in names
    assert "class_kid" not in names


@pytest.mark.parametrize(
    "stage", ["train_base", "evaluate_base", "generate", "predict", "train_diffusion", "evaluate"]
)
def test_a_command_without_the_captions_is_one_line(stages: StageFolder, stage: str):
    outcome = stages.run(stage)
    assert outcome.status == 1
    assert outcome.err.startswith("error: params.yaml: data.captions needs --captions, which")
    assert len(outcome.err.splitlines()) == 1


def test_captions_of_another_run_are_one_line(stages: StageFolder):
    other = stages.root / "other.safetensors"
    save_captions(other, torch.zeros(4, TOKENS, WIDTH), ["a", "b", "c"])
    outcome = stages.run("generate", captions="other.safetensors")
    assert outcome.status == 1
    assert outcome.err.startswith("error: other.safetensors: not the embeddings of this run's")
    assert len(outcome.err.splitlines()) == 1


def test_the_same_captions_have_the_same_bytes_again(stages: StageFolder):
    out = stages.must("encode_captions").out
    assert "51 captions and the empty one, [12, 8] each" in out
    made = stages.root / "made/captions.safetensors"
    assert made.read_bytes() == (stages.root / "captions.safetensors").read_bytes()

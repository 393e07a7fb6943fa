"""The exported folder: the images of its card's code, the card itself, and importing it again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from card_code import code_blocks, run_code
from conftest import REPO, snapshot
from small_params import AUTOENCODER, EDM, FLOW, UNET, diffusion_params
from small_results import a_run, some_params
from tiny_autoencoders import tiny_autoencoder
from tiny_unet import CONFIG

from advloop.core.errors import UserError
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import sample
from advloop.export.card import model_card, pipeline_code
from advloop.export.pipeline import Export, export_pipeline, read_unet
from advloop.export.schedulers import scheduler_config
from advloop.models.autoencoder import import_autoencoder
from advloop.models.base_model import import_base
from advloop.models.codec import Codec
from advloop.models.denoiser import build_denoiser, save_checkpoint
from advloop.params.diffusion import DiffusionParams

STEPS = 5
V = diffusion_params()
EPSILON = diffusion_params("epsilon", "linear")
SAMPLE = diffusion_params(
    "sample", "scaled_linear", num_train_timesteps=200, beta_start=0.0015, beta_end=0.0195
)


HASHES = {"images.npy": "12ab", "checkpoint": "34cd"}


def params_of(source: str = "pictures") -> dict[str, Any]:
    return some_params(data={"source": source}, generate={"num_inference_steps": STEPS})


def card_of(model: Export, source: str = "pictures") -> str:
    return model_card(model, params_of(source), a_run(), ["train"] * 5 + ["test"] * 2, HASHES)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """EMA weights and raw ones that differ."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, build_denoiser(CONFIG, seed=0), build_denoiser(CONFIG, seed=1))
    return path


class Kind(NamedTuple):
    autoencoder: str
    diffusion: DiffusionParams
    scale: float
    shift: float


# Every kind of autoencoder, prediction and schedule, in as few models.
MODELS = [
    Kind("PatchAutoencoder", V, 1.7, 0.0),
    Kind("PatchAutoencoder", EPSILON, 0.6, 0.25),
    Kind("AutoencoderKL", SAMPLE, 0.8, 0.0),
    Kind("AutoencoderKL", V, 1.3, -0.4),
    Kind("AutoencoderTiny", EPSILON, 1.0, 0.0),
    Kind("VQModel", V, 0.9, 0.0),
    Kind("PatchAutoencoder", diffusion_params(zero_terminal_snr=True), 1.1, 0.0),
    Kind("PatchAutoencoder", FLOW, 1.2, 0.0),
    Kind("AutoencoderKL", EDM, 1.2, 0.3),
]


def made(kind: Kind, checkpoint: Path) -> Export:
    autoencoder = tiny_autoencoder(kind.autoencoder)
    return Export(*read_unet(checkpoint), autoencoder, kind.scale, kind.shift, kind.diffusion)


def own_images(kind: Kind, count: int = 8) -> np.ndarray:
    """This project's samples from the noise of the card's code."""
    denoiser = build_denoiser(CONFIG, seed=0).eval()
    noise = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = sample(process_of(kind.diffusion), denoiser, noise, STEPS)
    codec = Codec(tiny_autoencoder(kind.autoencoder), kind.scale, kind.shift)
    return codec.decode(latents).astype(int)


@pytest.mark.parametrize("kind", MODELS, ids=lambda k: f"{k.autoencoder}-{k.scale}-{k.shift}")
def test_code_of_the_card_samples_the_images_of_this_project(
    kind: Kind, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = made(kind, checkpoint)
    export_pipeline(model, tmp_path / "final", card_of(model))
    blocks = code_blocks((tmp_path / "final/README.md").read_text())
    expected = own_images(kind)
    assert expected.std() > 5
    found = run_code(blocks.pop(), tmp_path / "final", monkeypatch)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1  # betas of float32 there, of float64 here
    assert len(blocks) == (kind.shift == 0 and kind.diffusion.process == "vp")
    for block in blocks:
        assert len([line for line in block.splitlines() if line]) <= 5
        pictures = run_code(block, tmp_path / "final", monkeypatch)
        assert np.abs(np.stack([np.asarray(p) for p in pictures]) - expected).max() <= 1


def test_five_lines_of_the_page_are_those_of_the_demos_card(checkpoint: Path):
    steps = yaml.safe_load((REPO / "params.yaml").read_text())["generate"]["num_inference_steps"]
    page = (REPO / "docs/your-own-data.md").read_text()
    assert code_blocks(page) == [f"{pipeline_code(made(MODELS[0], checkpoint), steps)}\n"]


@pytest.mark.parametrize("kind", [MODELS[1], MODELS[3]], ids=["own", "shifted"])
def test_diffusers_refuses_what_it_would_sample_otherwise(
    kind: Kind, checkpoint: Path, tmp_path: Path
):
    from diffusers import DiffusionPipeline

    model = made(kind, checkpoint)
    export_pipeline(model, tmp_path, card_of(model))
    with pytest.raises(ValueError, match="vqvae"):
        DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)


@pytest.mark.parametrize("kind", MODELS, ids=lambda k: f"{k.autoencoder}-{k.scale}-{k.shift}")
def test_folder_can_start_another_run_with_the_same_models_and_scale(
    kind: Kind, checkpoint: Path, tmp_path: Path
):
    model = made(kind, checkpoint)
    export_pipeline(model, tmp_path / "final", card_of(model))
    base = import_base(tmp_path / "final", (4, 8, 8), UNET, kind.diffusion)
    assert all(torch.equal(v, model.weights[k]) for k, v in base.network.state_dict().items())
    autoencoder, scale, shift = import_autoencoder(tmp_path / "final", AUTOENCODER)
    assert (scale, shift) == (kind.scale, kind.shift)
    weights = autoencoder.state_dict()
    expected = model.autoencoder.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())
    other = diffusion_params("epsilon", num_train_timesteps=7)
    with pytest.raises(UserError, match=r"params\.yaml: diffusion\.\w+="):
        import_base(tmp_path / "final", (4, 8, 8), UNET, other)


def test_equal_models_give_equal_bytes(checkpoint: Path, tmp_path: Path):
    for kind in (MODELS[0], MODELS[3]):
        model = made(kind, checkpoint)
        for name in ("one", "other"):
            export_pipeline(model, tmp_path / kind.autoencoder / name, card_of(model))
        one, other = (snapshot(tmp_path / kind.autoencoder / name) for name in ("one", "other"))
        assert one == other
        assert {Path(name).suffix for name in one} <= {".json", ".md", ".safetensors", ".py"}


def test_scheduler_takes_the_timesteps_of_this_project():
    from diffusers import DDIMScheduler

    from advloop.diffusion.variance_preserving import trailing_timesteps

    for process in (V, EPSILON, SAMPLE):
        scheduler = DDIMScheduler.from_config(scheduler_config(process))
        for steps in (1, 3, 25, 100):
            scheduler.set_timesteps(steps)
            expected = trailing_timesteps(process.num_train_timesteps, steps)
            assert scheduler.timesteps.tolist() == expected


def test_card_names_the_selected_model_its_scores_its_lineage_and_its_data(checkpoint: Path):
    card = card_of(made(MODELS[0], checkpoint))
    assert "This model is `iter_0`" in card
    assert "| iter_0 | 20.00 ± 0.25 |" in card
    lines = [line for line in card.splitlines() if line.startswith("- `")]
    assert [line[3:].split("`")[0] for line in lines] == ["base", "iter_0", "iter_1"]
    assert "from `base`" in lines[1]
    assert "KID -10.00 ± 0.00" in lines[1]
    assert ["this model" in line for line in lines] == [False, True, False]
    assert "7 images: 2 test, 5 train." in card
    assert '"images.npy": "12ab"' in card


@pytest.mark.parametrize(
    "source",
    ["a/b", "---\nlicense: mit\n", "```\n# Title", "'\"]}", "größe \u2028 x", "${seed}", ": |"],
)
def test_no_name_of_a_source_breaks_the_card(source: str, checkpoint: Path):
    model = made(MODELS[0], checkpoint)
    card, usual = card_of(model, source), card_of(model)
    assert len(card.splitlines()) == len(usual.splitlines())
    assert code_blocks(card) == code_blocks(usual)
    front = yaml.safe_load(card.split("\n---\n")[0])
    assert front["library_name"] == "diffusers"
    result = front["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == source
    names = ("pixels", "layout", "kid_lite0", "critic_gap", "image_critic_gap")
    assert {m["type"]: m["value"] for m in result["metrics"]} == dict.fromkeys(names, 20.0)
    *_, parameters = re.findall(r"^```json\n(.*?)^```$", card, re.S | re.M)
    assert json.loads(parameters) == params_of(source)


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path):
    path = tmp_path / "latents.pt"
    torch.save(torch.zeros(2, 3), path)
    with pytest.raises(UserError, match=r"latents\.pt: not a checkpoint"):
        read_unet(path)

"""Exported models that diffusers' own pipelines load, and those of texts that need ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from card_code import code_blocks, run_code
from PIL import Image
from small_params import FLOW, diffusion_params
from small_results import a_run, some_params
from tiny_autoencoders import tiny_autoencoder
from tiny_denoisers import DENOISERS, tiny_denoiser
from tiny_texts import save_encoder
from torch import nn

from advloop.data.latents import Scale
from advloop.data.pictures import save_png
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import condition_on_labels, sample
from advloop.export.card import model_card
from advloop.export.pipeline import Export, export_pipeline
from advloop.export.plain import plain_pipeline
from advloop.models.caption_table import CaptionTable
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser
from advloop.models.text_encoder import embed_captions, load_text_encoder
from advloop.params.diffusion import DiffusionParams

V, EPSILON = diffusion_params(), diffusion_params("epsilon", "scaled_linear")
CAPTION = 'a "cat" of ```\u2603'
SD, DIT = "StableDiffusionPipeline", "DiTPipeline"


class Case(NamedTuple):
    network: str
    pipeline: str | None
    diffusion: DiffusionParams = V
    guidance: float = 1.0
    encoder: str | None = None
    autoencoder: str = "AutoencoderKL"
    shift: float = 0.0


PLAIN = {
    "texts": Case("text unet", SD, EPSILON, encoder="clip"),
    "guided texts": Case("text unet", SD, guidance=2.5, encoder="clip"),
    "classes": Case("dit with classes", DIT),
    "classes and a sigma": Case("dit with sigma", DIT, EPSILON),
}
OWN = {
    "texts by a t5": Case("text unet", None, encoder="t5", guidance=2.5),
    "texts as a flow": Case("text unet", None, FLOW, encoder="clip"),
    "texts with a shift": Case("text unet", None, encoder="clip", shift=0.3),
    "texts, little guided": Case("text unet", None, encoder="clip", guidance=0.5),
    "texts, another autoencoder": Case("text unet", None, EPSILON, 1.0, "clip", "AutoencoderTiny"),
}


def made(case: Case, folder: Path) -> tuple[Export, np.ndarray]:
    """The model, exported to ``folder``/final, and this project's samples of it."""
    denoiser, encoder = tiny_denoiser(case.network), None
    labels = torch.arange(8) % 3
    if case.encoder:
        encoder = save_encoder(folder / "encoder", case.encoder)
        texts = ["other", CAPTION]
        table, _ = embed_captions(*load_text_encoder(encoder), texts, 2, lambda x: x)
        denoiser.captions, labels = CaptionTable(table), torch.ones(8, dtype=torch.int64)
    save_png(folder / "samples.png", Image.new("RGB", (16, 16), "red"))
    autoencoder = tiny_autoencoder(case.autoencoder)
    model = Export(
        denoiser.config,
        denoiser.weights(),
        autoencoder,
        1.2,
        case.shift,
        case.diffusion,
        5,
        case.guidance,
        folder / "samples.png",
        () if case.encoder else ("cat", "dog, or not", "owl"),
        encoder,
        CAPTION if case.encoder else "",
    )
    card = model_card(model, some_params(), a_run(), ["train"], {})
    export_pipeline(model, folder / "final", card)
    return model, own_images(case, denoiser, labels, autoencoder)


def own_images(
    case: Case, denoiser: Denoiser, labels: torch.Tensor, autoencoder: nn.Module
) -> np.ndarray:
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model = condition_on_labels(denoiser.eval(), labels, case.guidance, denoiser.null_label)
    latents = sample(process_of(case.diffusion), model, noise, 5)
    return Codec(autoencoder, 1.2, case.shift).decode(latents).astype(int)


RUN = """
import os, pathlib, re, sys, warnings
import numpy as np
warnings.simplefilter("error")
for folder in sys.argv[1:]:
    os.chdir(folder)
    card, names = pathlib.Path("README.md").read_text(), {}
    exec(re.findall("```python\\n(.*?)\\n```\\n", card, re.S)[0], names)
    np.save("found.npy", np.stack(names["images"]))
    print("found in", folder)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Any], str]:
    """The folders, this project's samples, and what one fresh Python said that ran all cards."""
    place = tmp_path_factory.mktemp("plain")
    expected = {}
    for name, case in PLAIN.items():
        (place / name).mkdir()
        expected[name] = made(case, place / name)[1]
    folders = {name: place / name / "final" for name in PLAIN}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, folders.values())],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return folders, expected, done.stdout


@pytest.mark.parametrize("name", PLAIN)
def test_diffusers_alone_loads_the_folder_and_samples_the_images_of_this_project(drawn, name):
    folders, expected, said = drawn
    index = json.loads((folders[name] / "model_index.json").read_text())
    assert index["_class_name"] == PLAIN[name].pipeline
    assert not list(folders[name].glob("*.py"))
    assert expected[name].std() > 5
    assert np.abs(np.load(folders[name] / "found.npy") - expected[name]).max() <= 1
    assert "warn" not in said.lower()
    assert "deprecat" not in said.lower()


@pytest.mark.parametrize("case", OWN.values(), ids=OWN)
def test_models_of_texts_without_a_pipeline_of_diffusers_sample_by_that_of_this_project(
    case, tmp_path, monkeypatch
):
    model, expected = made(case, tmp_path)
    assert model.plain is None
    (block,) = code_blocks((tmp_path / "final/README.md").read_text())
    found = run_code(block, tmp_path / "final", monkeypatch)
    assert expected.std() > 5
    assert np.abs(found - expected).max() <= 1
    for wrong in ("", "captions=['one'], ", "captions=['a'] * 8, labels=[0] * 8, "):
        code = f"{block[: block.index('captions=')]}{wrong}num_inference_steps=1).images"
        with pytest.raises(ValueError, match=r"a text for each image|knows no classes"):
            run_code(code, tmp_path / "final", monkeypatch)


THOUSAND = {"num_embeds_ada_norm": 1000}


@pytest.mark.parametrize(
    ("network", "changes", "scales", "process", "guidance", "encoder", "expected"),
    [
        ("text unet", {}, (1.2, 0.0), V, 1.0, "clip_text_model", SD),
        ("text unet", {}, (1.2, 0.0), V, 0.9, "clip_text_model", None),
        ("text unet", {}, (1.2, 0.0), V, 4.0, "t5", None),
        ("text unet", {}, (1.2, 0.1), V, 1.0, "clip_text_model", None),
        ("text unet", {}, ((1.0,) * 4, (0.0,) * 4), V, 1.0, "clip_text_model", None),
        ("text unet", {}, (1.2, 0.0), FLOW, 1.0, "clip_text_model", None),
        ("text unet", {"out_channels": 8}, (1.2, 0.0), V, 1.0, "clip_text_model", None),
        ("text unet", {"sample_size": 6}, (1.2, 0.0), V, 1.0, "clip_text_model", None),
        ("dit with classes", {}, (1.2, 0.0), V, 1.0, None, DIT),
        ("dit with classes", {}, (1.2, 0.0), V, 4.0, None, None),
        ("dit with classes", THOUSAND, (1.2, 0.0), V, 4.0, None, DIT),
        ("dit with classes", THOUSAND, (1.2, 0.0), V, 0.5, None, None),
        ("dit with classes", {}, (1.2, 0.0), FLOW, 1.0, None, None),
        ("unet with classes", {}, (1.2, 0.0), V, 1.0, None, None),
    ],
)
def test_a_pipeline_of_diffusers_is_taken_only_where_it_samples_the_same(
    network: str,
    changes: dict[str, int],
    scales: tuple[Scale, Scale],
    process: DiffusionParams,
    guidance: float,
    encoder: str | None,
    expected: str | None,
):
    config = DENOISERS[network] | changes
    classes = () if encoder else ("cat", "dog")
    autoencoder = tiny_autoencoder("AutoencoderKL")
    rest = scales, process, guidance
    assert plain_pipeline(config, autoencoder, *rest, classes, encoder) == expected
    if expected:
        other = tiny_autoencoder("AsymmetricAutoencoderKL")
        assert plain_pipeline(config, other, *rest, classes, encoder) is None
    if expected == DIT:
        assert plain_pipeline(config, autoencoder, *rest, (), encoder) is None

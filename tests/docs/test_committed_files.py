"""The committed run is that of the committed code, and the shipped models are what they claim."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import yaml
from conftest import REPO
from omegaconf import OmegaConf

STAGE1 = REPO / "data/stage1"


def md5(path: Path) -> str:
    """As in dvc.lock; a folder's is that of its list of files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    listed = [{"md5": md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def test_committed_run_was_made_by_the_committed_code():
    stages = yaml.safe_load((REPO / "dvc.lock").read_text())["stages"]
    code = {
        dep["path"]: dep["md5"]
        for stage in stages.values()
        for dep in stage["deps"]
        if dep["path"].startswith(("src/", "stages/"))
    }
    assert len(code) > 20
    stale = [path for path in code if code[path] != md5(REPO / path)]
    assert stale == [], "run `make demo` and commit dvc.lock and reports/"


def test_stage1_models_are_small_and_hold_no_pickle():
    files = [p for p in STAGE1.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 40_000_000
    assert {p.suffix for p in files if p.stat().st_size > 100_000} == {".safetensors"}


def test_stage1_models_were_trained_on_the_embedded_data_with_the_parameters_of_the_demo():
    record = json.loads((STAGE1 / "stage1.json").read_text())
    archive = REPO / "data/freedoom_plans.zip"
    assert record["data_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert record["figures"]["val_psnr_db"] >= 29
    trained = record["params"]
    params = OmegaConf.to_container(OmegaConf.load(REPO / "params.yaml"))
    for section in ("autoencoder", "base"):
        params[section]["pretrained"] = None
    younger = {
        "data": {"value_range": None, "captions": None, "text_encoder": None},
        "base": {"trained_as": None},
        "diffusion": {"process": "vp", "zero_terminal_snr": False},
    }
    trained |= {section: values | trained[section] for section, values in younger.items()}
    assert trained == {name: params[name] for name in trained}

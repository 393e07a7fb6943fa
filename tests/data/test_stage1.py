"""What `make stage1` does after the training: the models of the run become data/stage1."""

from __future__ import annotations

import json
import runpy

import pytest
import yaml
from conftest import REPO
from small_params import AUTOENCODER
from tiny_unet import CONFIG

from advloop.core.files import write_json
from advloop.models.autoencoder import build_autoencoder, load_autoencoder, save_autoencoder
from advloop.models.denoiser import build_denoiser, save_checkpoint

export = runpy.run_path(str(REPO / "data/stage1/export.py"))["main"]


@pytest.fixture
def project(tmp_path):
    """A run that has trained both models."""
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params["autoencoder"]["pretrained"] = params["base"]["pretrained"] = None
    params["data"]["source"] = "images.zip"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "images.zip").write_bytes(b"")
    (tmp_path / "data/stage1").mkdir(parents=True)
    outputs = tmp_path / "outputs"
    save_autoencoder(outputs / "autoencoder", build_autoencoder(AUTOENCODER), None, 0.0)
    write_json(outputs / "autoencoder.json", {"val_psnr_db": 30.0})
    (outputs / "base").mkdir()
    save_checkpoint(outputs / "base/checkpoint_best.pt", build_denoiser(CONFIG, seed=0))
    write_json(outputs / "base/metrics.json", {"val_noise_loss": 0.5})
    return tmp_path


def test_models_and_their_record_are_published(project):
    export(project)
    stage1 = project / "data/stage1"
    record = json.loads((stage1 / "stage1.json").read_text())
    assert record["figures"] == {"val_noise_loss": 0.5, "val_psnr_db": 30.0}
    assert record["machine"]
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert record["params"] == {name: params[name] for name in record["params"]}
    assert {"seed", "precision", "data", "autoencoder", "base"} <= set(record["params"])
    load_autoencoder(stage1 / "autoencoder")
    assert (stage1 / "unet/diffusion_pytorch_model.safetensors").stat().st_size > 0


def test_a_run_that_imported_a_model_is_refused(project):
    content = yaml.safe_load((project / "params.yaml").read_text())
    content["base"]["pretrained"] = "data/stage1/unet"
    (project / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit, match="run `make stage1`"):
        export(project)

"""A folder in which every stage has run once at scale tiny, to run single stages again in.

What a stage writes goes to ``made/``; what it reads stands beside it, as earlier stages
made it.
"""

from __future__ import annotations

import importlib
import io
import shutil
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from common import run_stage
from conftest import make_project, snapshot
from diffusers import AutoencoderKL
from omegaconf import OmegaConf

import check_config
from advloop.autoencoder import load_autoencoder
from advloop.core.io import copy_file
from advloop.unet import load_checkpoint
from hydra_plugins import advloop_derived

MODEL = "base/checkpoint_best.pt"
DISC = "disc/discriminator_best.pt"
STAGES: dict[str, dict[str, Any]] = {
    "check_config": {"out": "made/config.ok"},
    "prepare": {"out": "made/data"},
    "train_autoencoder": {
        "data": "data",
        "out": "made/autoencoder",
        "metrics": "made/autoencoder.json",
    },
    "encode_dataset": {"data": "data", "autoencoder": "autoencoder", "out": "made/latents"},
    "train_base": {
        "latents": "latents",
        "out": f"made/{MODEL}",
        "metrics": "made/base/metrics.json",
        "history": "made/base/metrics.csv",
    },
    "generate": {
        "iteration": 0,
        "model": MODEL,
        "latents": "latents",
        "out": "made/fake.pt",
        "predicted": "made/predicted.pt",
    },
    "encode": {
        "iteration": 0,
        "data": "data",
        "autoencoder": "autoencoder",
        "stats": "latents/stats.json",
        "out": "made/real.pt",
        "manifest": "made/real.csv",
    },
    "train_disc": {
        "iteration": 1,  # the first one that reads earlier fakes
        "real": "real.pt",
        "manifest": "real.csv",
        "latents": "latents",
        "fake": "fake.pt",
        "predicted": "predicted.pt",
        "replay": "replay.pt",
        "out": "made/disc",
        "metrics": "made/disc/metrics.json",
    },
    "train_diffusion": {
        "iteration": 0,
        "model": MODEL,
        "discriminator": DISC,
        "fakes": "fake.pt",
        "latents": "latents",
        "autoencoder": "autoencoder",
        "out": "made/diffusion",
        "metrics": "made/diffusion/metrics.json",
    },
    "evaluate_reals": {
        "data": "data",
        "autoencoder": "autoencoder",
        "latents": "latents",
        "out": "made/reals",
    },
    "evaluate": {
        "name": "base",
        "model": MODEL,
        "latents": "latents",
        "autoencoder": "autoencoder",
        "reals": "reals/reals.pt",
        "manifest": "data/manifest.csv",
        "previous": "reals/reals.json",
        "discriminator": DISC,
        "disc-metrics": "disc/metrics.json",
        "disc-history": "disc/discriminator_history.csv",
        "diffusion-metrics": "diffusion/metrics.json",
        "diffusion-history": "diffusion/metrics.csv",
        "out": "made/evaluation/base.json",
    },
    "select_model": {
        "name": "base",
        "evaluation": "evaluation/base.json",
        "model": MODEL,
        "out": "made/selected.pt",
    },
    "export_model": {
        "model": MODEL,
        "autoencoder": "autoencoder",
        "stats": "latents/stats.json",
        "data": "data",
        "evaluation": "evaluation/base.json",
        "out": "made/final",
    },
    "report": {
        "evaluation": "evaluation/iter_0.json",
        "metrics": "made/metrics.json",
        "rounds": "made/rounds.csv",
        "picture": "made/samples.png",
        "page": "made/report.html",
    },
}
# What evaluates the model of a round after the base model.
LATER = {
    "name": "iter_0",
    "model": "diffusion/checkpoint_best.pt",
    "previous": "made/evaluation/base.json",
    "out": "made/evaluation/iter_0.json",
}
# train_disc reads all that it can read, and evaluation takes no network from elsewhere.
PARAMS = {
    "train_disc": {"predicted_fraction": 0.25, "replay_fraction": 0.25},
    "evaluate": {"features": "encoder"},
}


class Outcome(NamedTuple):
    """How a stage ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


class StageFolder:
    """A folder to work in, where stages run in this process as their scripts would."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.stream: type[io.StringIO] = io.StringIO  # of standard output, and of standard error
        patch.chdir(root)
        patch.setenv("ADVLOOP_DEVICE", "cpu")
        patch.setattr(check_config, "CONF", root / "conf")
        digest = advloop_derived.conf_digest
        patch.setattr(advloop_derived, "conf_digest", lambda: digest(root / "conf"))

    def set(self, changes: Mapping[str, Any]) -> None:
        """Merge ``changes`` into params.yaml."""
        path = self.root / "params.yaml"
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), changes), path)

    def run(self, stage: str, **options: Any) -> Outcome:
        """What the stage's script does when DVC calls it; ``options`` in place of STAGES'."""
        argv = [f"{stage}.py"]
        for option, value in (STAGES[stage] | options).items():
            argv += [f"--{option}", str(value)]
        self.patch.setattr("sys.argv", argv)
        out, err = self.stream(), self.stream()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            run_stage(importlib.import_module(stage).main)
        return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def mend(self, good: Path) -> None:
        """Every input as it is in the folder ``good``; what stages made here stays."""
        for path in self.root.iterdir():
            if path.is_dir() and not path.is_symlink():
                if path.name != "made":
                    shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(good, self.root, symlinks=True, dirs_exist_ok=True)

    def made(self) -> dict[str, bytes]:
        """Every file that stages have written here."""
        return snapshot(self.root / "made")


def run_all(place: StageFolder) -> None:
    """Every stage once, each on what those before it made."""
    for stage in STAGES:
        first = {"iteration": 0} if stage == "train_disc" else {}
        outcome = place.run(stage, **first)
        assert outcome.status == 0, outcome
        if stage == "evaluate":
            outcome = place.run(stage, **LATER)
            assert outcome.status == 0, outcome
        for path in (place.root / "made").iterdir():
            path.rename(place.root / path.name)
        if stage == "train_disc":
            copy_file(place.root / "disc/replay_latents.pt", place.root / "replay.pt")


def build(folder: Path) -> Path:
    """Run every stage in a new tiny project, and keep what each made as the next one's input."""
    project = make_project(folder)
    for name in (".git", "src", "stages"):  # the scripts of this repository run
        shutil.rmtree(project / name)
    with pytest.MonkeyPatch.context() as patch:
        place = StageFolder(project, patch)
        place.set(PARAMS)
        run_all(place)
        unet = load_checkpoint(project / MODEL).unet
        unet.save_pretrained(project / "unet")
        torch.save(unet.state_dict(), project / "unet.pt")
        torch.save(load_autoencoder(project / "autoencoder").state_dict(), project / "vae.pt")
        AutoencoderKL(
            block_out_channels=[8, 8, 8],
            down_block_types=["DownEncoderBlock2D"] * 3,
            up_block_types=["UpDecoderBlock2D"] * 3,
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
        ).save_pretrained(project / "vae")
        shutil.make_archive(str(project / "images"), "zip", project / "images")
    return project

"""Peak memory of single stages as latents get more: it should not grow with their number."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from advloop.core.files import save_torch, write_json
from advloop.data.dataset import write_manifest
from advloop.models.autoencoder import build_autoencoder, save_autoencoder
from advloop.models.denoiser import build_denoiser, save_checkpoint, unet_config
from advloop.params.data import AutoencoderParams
from advloop.params.diffusion import UNetParams
from advloop.params.loader import Params
from shapes import ROOT

COUNTS = (5_000, 20_000, 80_000)
CHANNELS, SIDE, IMAGE = 16, 8, 32  # 4 KiB a latent, 3 KiB an image
VALIDATION = 500  # images and latents
POLL = 0.02
# The smallest networks that the stages accept, because only the memory of the data matters.
SMALL = {
    "scale": "memory",
    "precision": "fp32",
    "data": {"image_size": IMAGE},
    "autoencoder": {"factor": 4, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
    "encode_dataset": {"augment": "none", "batch_size": 500},
    "unet": {"block_out_channels": [16], "layers_per_block": 1, "norm_num_groups": 4},
    "generate": {"num_inference_steps": 1, "batch_size": 500},
    "discriminator": {"channels": [8]},
    "train_disc": {"epochs": 1, "batch_size": 500},
    "train_diffusion": {
        "epochs": 1,
        "samples_per_epoch": 2000,  # drawn from all latents
        "batch_size": 100,
        "eval_interval": 1,
        "sample_interval": 1,
        "num_preview_samples": 1,
        "preview_steps": 1,
    },
}
STAGES = {
    "encode_dataset": "--data data --autoencoder autoencoder --out made/latents",
    "generate": "--iteration 0 --model model.pt --latents latents --out made/fake.pt",
    "predict": "--iteration 0 --model model.pt --latents latents --out made/predicted.pt",
    "encode": "--iteration 0 --data data --latents latents --out made/real.pt "
    "--manifest made/real.csv",
    "train_disc": "--iteration 0 --real latents/train.pt --manifest real.csv --latents latents "
    "--fake fake.pt --out made/discriminator",
    "train_diffusion": "--iteration 0 --model model.pt --fakes fake.pt --latents latents "
    "--autoencoder autoencoder --out made/model",
}


@dataclass(frozen=True)
class Peak:
    """Memory of one stage over ``count`` latents, in MiB.

    own: memory of this process alone. total: with the pages of mapped files, which the kernel takes
    back when it needs room.
    """

    stage: str
    count: int
    own: float
    total: float
    seconds: float


def _latents(path: Path, count: int) -> None:
    stream = torch.Generator().manual_seed(count)
    save_torch(path, torch.randn(count, CHANNELS, SIDE, SIDE, generator=stream))


def prepare(folder: Path, count: int) -> None:
    """Write what the stages of STAGES read, for ``count`` latents, images or samples."""
    content: Any = OmegaConf.merge(OmegaConf.load(ROOT / "params.yaml"), SMALL)
    content.objective = OmegaConf.load(ROOT / "conf/objective/ddo.yaml")  # reads reals and fakes
    content.generate.num_samples = count
    OmegaConf.save(content, folder / "params.yaml")
    params = Params.load(folder / "params.yaml")
    autoencoder = build_autoencoder(params.section("autoencoder", AutoencoderParams))
    save_autoencoder(folder / "autoencoder", autoencoder)
    config = unet_config(params.section("unet", UNetParams), CHANNELS, SIDE)
    unet = build_denoiser(config, seed=0)
    save_checkpoint(folder / "model.pt", unet)
    _latents(folder / "latents/train.pt", count)
    _latents(folder / "latents/val.pt", VALIDATION)
    _latents(folder / "fake.pt", count)
    write_json(folder / "latents/stats.json", {"latent_scale": 1.0, "latent_shift": 0.0})
    _images(folder / "data", count)
    names = [f"{k}.png" for k in range(count)]
    splits = ["train" if k % 5 else "val" for k in range(count)]
    write_manifest(folder / "real.csv", zip(names, names, splits, strict=True))


def _images(folder: Path, count: int) -> None:
    """As stage prepare leaves them: ``count`` of train, and some of every other split."""
    rows = [(f"{k}.png", f"group{k % 100}", "train") for k in range(count)]
    rows += [(f"val{k}.png", "val", "val") for k in range(VALIDATION)]
    rows += [("tune.png", "tune", "tune"), ("test.png", "test", "test")]
    write_manifest(folder / "manifest.csv", rows)
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (len(rows), IMAGE, IMAGE, 3)
    )
    for start in range(0, len(rows), 1000):
        part = images[start : start + 1000]
        part[:] = np.random.default_rng(start).integers(256, size=part.shape, dtype=np.uint8)
    images.flush()


def memory_of(pid: int) -> dict[str, int]:
    """Memory of a process in KiB; {} if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) for name, value in pairs if value.endswith(" kB")}


def measure(stage: str, folder: Path, count: int) -> Peak:
    """Run a stage of STAGES in ``folder``; own is polled, total is the kernel's own peak.

    Raises CalledProcessError, after printing the stage's output, if the stage fails.
    """
    command = [sys.executable, str(ROOT / "stages" / f"{stage}.py"), *STAGES[stage].split()]
    own = total = 0
    began = time.perf_counter()
    with (folder / f"{stage}.log").open("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"ADVLOOP_DEVICE": "cpu"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            status = memory_of(process.pid)
            own = max(own, status.get("RssAnon", 0))
            total = max(total, status.get("VmHWM", 0))
            time.sleep(POLL)
        if process.returncode:
            log.seek(0)
            print(log.read(), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    return Peak(stage, count, own / 1024, total / 1024, time.perf_counter() - began)


def peaks(counts: tuple[int, ...] = COUNTS) -> list[Peak]:
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name), count)
            for stage in STAGES:
                found.append(measure(stage, Path(name), count))
                print(found[-1], flush=True)
    return found

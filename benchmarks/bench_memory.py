"""Peak memory of single stages over more and more latents: it should not grow with them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from advloop.autoencoder import build_autoencoder, save_autoencoder
from advloop.core.io import save_torch, write_json
from advloop.discriminator import build_discriminator, save_discriminator
from advloop.manifest import write_manifest
from advloop.params.data import AutoencoderParams
from advloop.params.diffusion import UNetParams
from advloop.params.discriminator import DiscriminatorParams
from advloop.params.loader import Params
from advloop.unet import build_unet, save_checkpoint, unet_config

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (5_000, 20_000, 80_000)
CHANNELS, SIDE, IMAGE = 16, 8, 32  # 4 KiB a latent, 3 KiB an image
POLL = 0.02
# Networks as small as the stages take: what is measured is the data's share.
SMALL = {
    "scale": "memory",
    "precision": "fp32",
    "data": {"image_size": IMAGE},
    "autoencoder": {"factor": 4, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
    "encode_dataset": {"augment": "none", "batch_size": 500},
    "unet": {"block_out_channels": [16], "layers_per_block": 1, "norm_num_groups": 4},
    "generate": {"num_inference_steps": 1, "batch_size": 500},
    "encode": {"batch_size": 500},
    "discriminator": {"channels": [8]},
    "train_disc": {"epochs": 1, "batch_size": 500},
    "train_diffusion": {
        "epochs": 1,
        "samples_per_epoch": 2000,  # drawn from all of the latents
        "batch_size": 100,
        "eval_interval": 1,
        "sample_interval": 1,
        "num_preview_samples": 1,
        "preview_steps": 1,
    },
}
STAGES = {
    "generate": "--iteration 0 --model model.pt --latents latents --out made/fake.pt "
    "--predicted made/predicted.pt",
    "encode": "--iteration 0 --data data --autoencoder autoencoder --stats latents/stats.json "
    "--out made/real.pt --manifest made/real.csv",
    "train_disc": "--iteration 0 --real latents/train.pt --manifest real.csv --latents latents "
    "--fake fake.pt --predicted none --replay none --out made/disc --metrics made/disc.json",
    "train_diffusion": "--iteration 0 --model model.pt --discriminator disc.pt --fakes fake.pt "
    "--latents latents --autoencoder autoencoder --out made/diffusion --metrics made/metrics.json",
}


@dataclass(frozen=True)
class Peak:
    """MiB of one stage over ``count`` latents. own: memory that nothing but this process holds.

    total: with the pages of mapped files, which the kernel takes back when it needs room.
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
    """What every stage of STAGES reads, for ``count`` latents, images or samples."""
    content = OmegaConf.merge(OmegaConf.load(ROOT / "params.yaml"), SMALL)
    content.generate.num_samples = count
    OmegaConf.save(content, folder / "params.yaml")
    params = Params(OmegaConf.load(folder / "params.yaml"), folder / "params.yaml")
    autoencoder = build_autoencoder(params.section("autoencoder", AutoencoderParams))
    save_autoencoder(folder / "autoencoder", autoencoder)
    config = unet_config(params.section("unet", UNetParams), CHANNELS, SIDE)
    unet = build_unet(config, seed=0)
    save_checkpoint(folder / "model.pt", unet)
    disc = build_discriminator(params.section("discriminator", DiscriminatorParams), CHANNELS, 0, 0)
    save_discriminator(folder / "disc.pt", disc.config, disc.state_dict())
    _latents(folder / "latents/train.pt", count)
    _latents(folder / "latents/val.pt", 500)
    _latents(folder / "fake.pt", count)
    write_json(folder / "latents/stats.json", {"latent_scale": 1.0, "latent_shift": 0.0})
    _images(folder / "data", count)
    names = [f"{k}.png" for k in range(count)]
    splits = ["train" if k % 5 else "val" for k in range(count)]
    write_manifest(folder / "real.csv", zip(names, names, splits, strict=True))


def _images(folder: Path, count: int) -> None:
    """As stage prepare leaves them; as many as are drawn, and one for each evaluation split."""
    rows = [(f"{k}.png", f"group{k % 100}", "train" if k % 5 else "val") for k in range(count)]
    rows += [("tune.png", "tune", "tune"), ("test.png", "test", "test")]
    write_manifest(folder / "manifest.csv", rows)
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (len(rows), IMAGE, IMAGE, 3)
    )
    for start in range(0, len(rows), 1000):
        part = images[start : start + 1000]
        part[:] = np.random.default_rng(start).integers(256, size=part.shape, dtype=np.uint8)
    images.flush()


def _status(pid: int) -> dict[str, int]:
    """KiB of a process; {} where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) for name, value in pairs if value.endswith(" kB")}


def measure(stage: str, folder: Path, count: int) -> Peak:
    """Run a stage of STAGES in ``folder``. RssAnon is polled, VmHWM is the kernel's own peak.

    Raises CalledProcessError with the stage's output where it fails.
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
            status = _status(process.pid)
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

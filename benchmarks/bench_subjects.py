"""What is raced, in which shapes, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

import bench_discriminator
import bench_encoding
import bench_sampling
import bench_training
from advloop.params.data import AutoencoderParams
from advloop.params.diffusion import UNetParams
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.params.loader import Params
from advloop.unet import unet_config
from race import Contender, Sample, race

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = {  # and what their rates count
    "training": "images",
    "generation": "network calls",
    "discriminator": "latents",
    "encoding": "images",
}
# Batches of full.yaml are for a GPU; on a CPU as many as still drown the cost of the update.
CPU_BATCH = {"demo": 64, "full": 96}
CPU_STEPS = {"demo": 48, "full": 4}


def quick_precision(where: torch.device) -> str:
    """bf16 where there are instructions for it; elsewhere a CPU takes longer over it."""
    has = where.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if has else "fp32"


def shape_params(shape: str) -> Params:
    """Of params.yaml (``demo``) with those of the scale (``full``) over them."""
    content: Any = OmegaConf.load(ROOT / "params.yaml")
    path = ROOT / "conf/scale" / f"{shape}.yaml"
    return Params(OmegaConf.merge(content, OmegaConf.load(path)), path)


def shape_unet(params: Params) -> dict[str, Any]:
    """The arguments of UNet2DModel; they hold the shape of the latents."""
    autoencoder = params.section("autoencoder", AutoencoderParams)
    side = params.content.data.image_size // autoencoder.factor
    return unet_config(params.section("unet", UNetParams), autoencoder.latent_channels, side)


def waiter(where: torch.device) -> Callable[[], object]:
    """Returns when the device has finished what it was given."""
    return torch.cuda.synchronize if where.type == "cuda" else lambda: None


def contenders(
    subject: str, params: Params, shape: str, precision: str, where: torch.device
) -> list[Contender]:
    """Those of one subject, made when its turn has come: memory holds one at a time."""
    gpu, content = where.type == "cuda", params.content
    autoencoder = params.section("autoencoder", AutoencoderParams)
    config, size = shape_unet(params), content.data.image_size
    channels, side = config["in_channels"], config["sample_size"]
    stream = torch.Generator().manual_seed(0)

    def latents(count: int) -> torch.Tensor:
        return torch.randn(count, channels, side, side, generator=stream)

    if subject == "training":
        batch = content.base.batch_size if gpu else CPU_BATCH[shape]
        steps = 8 if gpu else CPU_STEPS[shape]
        return bench_training.contenders(config, latents(batch * steps), batch, precision, where)
    if subject == "generation":
        count = content.generate.batch_size if gpu else {"demo": 100, "full": 32}[shape]
        steps = content.generate.num_inference_steps if gpu else {"demo": 5, "full": 5}[shape]
        return bench_sampling.contenders(config, count, steps, count, precision, where)
    if subject == "discriminator":
        training = params.section("train_disc", TrainDiscParams)
        training.epochs = 1
        model = params.section("discriminator", DiscriminatorParams)
        count = 8192 if gpu else {"demo": 8192, "full": 512}[shape]
        return bench_discriminator.contenders(model, training, latents(count), precision, where)
    count = 2048 if gpu else {"demo": 1024, "full": 32}[shape]
    images = np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)
    batch = min(content.encode.batch_size, count)
    return bench_encoding.contenders(autoencoder, images, batch, precision, where)


def measure(
    subject: str, shapes: Sequence[str], precision: str, where: torch.device, rounds: int
) -> list[Sample]:
    """``rounds`` of every contender of a subject, in each of the shapes."""
    samples: list[Sample] = []
    for shape in shapes:
        racing = contenders(subject, shape_params(shape), shape, precision, where)
        samples += race(subject, shape, racing, SUBJECTS[subject], rounds, waiter(where))
        print(f"  {shape} done", flush=True)
    return samples

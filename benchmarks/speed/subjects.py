"""The subjects that are raced, with the amount of work of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

import discriminator
import encoding
import generation
import training
from advloop.params.data import AutoencoderParams, DataParams, EncodeDatasetParams
from advloop.params.loader import Params
from advloop.params.training import (
    BaseParams,
    DiscriminatorParams,
    GenerateParams,
    TrainDiscParams,
)
from race import Contender, Sample, race
from shapes import shape_params, shape_unet, waiter

SUBJECTS = {  # with the unit of their rates
    "training": "images",
    "generation": "network calls",
    "discriminator": "latents",
    "encoding": "images",
}
# The batches of full.yaml are for a GPU. On a CPU, these suffice to hide the cost of the update.
CPU_BATCH = {"demo": 64, "full": 96}
CPU_STEPS = {"demo": 48, "full": 4}


def contenders(
    subject: str, params: Params, shape: str, precision: str, device: torch.device
) -> list[Contender]:
    """The contenders of one subject, made in its turn: only one subject is in memory at a time."""
    gpu = device.type == "cuda"
    autoencoder = params.section("autoencoder", AutoencoderParams)
    config, size = shape_unet(params), params.section("data", DataParams).image_size
    channels, side = config["in_channels"], config["sample_size"]
    stream = torch.Generator().manual_seed(0)

    def latents(count: int) -> torch.Tensor:
        return torch.randn(count, channels, side, side, generator=stream)

    if subject == "training":
        batch = params.section("base", BaseParams).batch_size if gpu else CPU_BATCH[shape]
        steps = 8 if gpu else CPU_STEPS[shape]
        return training.contenders(config, latents(batch * steps), batch, precision, device)
    if subject == "generation":
        sampling = params.section("generate", GenerateParams)
        count = sampling.batch_size if gpu else {"demo": 100, "full": 32}[shape]
        steps = sampling.num_inference_steps if gpu else {"demo": 5, "full": 5}[shape]
        return generation.contenders(config, count, steps, count, precision, device)
    if subject == "discriminator":
        settings = params.section("train_disc", TrainDiscParams).model_copy(update={"epochs": 1})
        model = params.section("discriminator", DiscriminatorParams)
        count = 8192 if gpu else {"demo": 8192, "full": 512}[shape]
        return discriminator.contenders(model, settings, latents(count), precision, device)
    count = 2048 if gpu else {"demo": 1024, "full": 32}[shape]
    images = np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)
    batch = min(params.section("encode_dataset", EncodeDatasetParams).batch_size, count)
    return encoding.contenders(autoencoder, images, batch, precision, device)


def measure(
    subject: str, shapes: Sequence[str], precision: str, device: torch.device, rounds: int
) -> list[Sample]:
    """``rounds`` of every contender of a subject, in each shape."""
    samples: list[Sample] = []
    for shape in shapes:
        racing = contenders(subject, shape_params(shape), shape, precision, device)
        samples += race(subject, shape, racing, SUBJECTS[subject], rounds, waiter(device))
        print(f"  {shape} done", flush=True)
    return samples

"""The rates of the stages' work on a GPU, beside plain loops and bare networks; parts of gpu.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import numpy as np
import torch

import discriminator
import encoding
import generation
import training
import variants
from advloop.core.device import autocast
from advloop.core.random import generator, noise_for
from advloop.diffusion.sampling import sample
from advloop.models.denoiser import Denoiser
from advloop.params.data import AutoencoderParams, DataParams, EncodeDatasetParams
from advloop.params.training import DiscriminatorParams, GenerateParams, TrainDiscParams
from advloop.training.diffusion import train_diffusion
from cost_model import forward_flops
from gpu_bench import (
    OF_BARE,
    OF_PLAIN,
    SAMPLING,
    TRAINING,
    Bench,
    as_in_a_stage,
    compare,
    cudnn,
    rate,
)
from race import race


def peak(bench: Bench) -> None:
    """bf16 products of 8192³, of random numbers."""
    side = 64 if bench.tiny else 8192
    left, right = torch.randn(2, side, side, device=bench.device, dtype=torch.bfloat16)
    spent = bench.seconds(lambda: [left @ right for _ in range(10)]) / 10
    bench.peak = 2 * side**3 / spent
    bench.add(f"bf16 product of {side}³", bench.peak / 1e12, "TFLOP/s")
    source = torch.randn(bench.few(1 << 30), device=bench.device)
    target = torch.empty_like(source)
    spent = bench.seconds(lambda: target.copy_(source))
    bench.add("copy, bytes read and written", 8 * len(source) / spent / 1e12, "TB/s")


def our_training(bench: Bench, batch: int, steps: int) -> list[float]:
    """Images a second of some epochs, in the loop and the mode of a stage, from the lowest on."""
    latents = bench.latents(batch * steps)
    setup = training.epoch_of(latents, batch, bench.precision, bench.device, epochs=5)
    ends = []

    def on_epoch(*_: object) -> None:
        bench.wait()
        ends.append(time.perf_counter())

    with as_in_a_stage():
        train_diffusion(setup, bench.unet(), lambda items: items, on_epoch)
    # neither the first, which warms up, nor the last, which validates
    return sorted(len(latents) / (end - start) for start, end in pairwise(ends[:-1]))


def training_step(bench: Bench) -> None:
    """Ours, the bare network and the plain loop in fp32."""
    target, steps = bench.scaled(TRAINING), bench.few(24)
    if bench.gpu:
        torch.cuda.reset_peak_memory_stats()
    slowest, ours, fastest = our_training(bench, bench.batch, steps)
    bench.add(f"ours, batch {bench.batch}", ours, "images/s", target)
    bench.add("ours, fastest over slowest epoch", fastest / slowest, "×")
    bench.add("ours, share of the peak", ours * 3 * unet_flops(bench) / bench.peak, "")
    if bench.gpu:
        bench.add("ours, peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
    many, few = (bench.latents(bench.batch * count) for count in (steps, bench.few(4)))
    more = (bench.batch, bench.precision, bench.device)
    bare = training.contenders(bench.config, many, *more)[1]
    plain = training.contenders(bench.config, few, *more)[2]
    samples = race(bench.part, bench.shape, [bare, plain], "images", bench.few(2), bench.wait)
    for one, least in ((bare, OF_BARE), (plain, OF_PLAIN)):
        found = rate(samples, one.name)
        bench.add(one.name, found, "images/s")
        bench.add(f"ours / {one.name}", ours / found, "×", least)
    with cudnn(allow_tf32=False):
        strict = len(few) / bench.seconds(plain.run, 1)
    bench.add(f"{plain.name}, without TF32", strict, "images/s")
    bench.add("ours / that", ours / strict, "×", OF_PLAIN)
    _, larger, _ = our_training(bench, 2 * bench.batch, max(1, steps // 2))
    bench.add(f"ours, batch {2 * bench.batch}", larger, "images/s", target)
    with mock.patch("advloop.training.batches.drawn_on", lambda _, stream: stream):
        _, host_noise, _ = our_training(bench, bench.batch, bench.few(12))
    bench.add("ours, noise drawn on the host", host_noise, "images/s")


def unet_flops(bench: Bench) -> float:
    """FLOPs of a forward pass of one latent."""
    with torch.device("meta"):
        return forward_flops(
            Denoiser(bench.config), torch.empty(1, *bench.size), torch.zeros(1, dtype=torch.long)
        )


def sampling(bench: Bench) -> None:
    """DDIM, as stage generate runs it, and its loop with a CUDA graph of the network."""
    settings = bench.params.section("generate", GenerateParams)
    count, steps = bench.few(settings.batch_size), bench.few(settings.num_inference_steps)
    more = (count, bench.precision, bench.device)
    ours, _, bare = generation.contenders(bench.config, count, steps, *more)
    few = bench.few(5)
    _, small, _ = generation.contenders(bench.config, count, few, *more)
    _, large, _ = generation.contenders(bench.config, count, few, *more, pipeline_batch=count)
    racing = [ours, bare, replace(small, name=f"{small.name}, batch {generation.PIPELINE_BATCH}")]
    racing.append(replace(large, name=f"{large.name}, batch {count}"))
    found = compare(bench, racing, "network calls", bench.scaled(SAMPLING))
    bench.add("ours, share of the peak", found * unet_flops(bench) / bench.peak, "")
    if bench.gpu:
        graphed_sampling(bench, count, steps)


def graphed_sampling(bench: Bench, count: int, steps: int) -> None:
    """The sampler as it is, whose model replays a CUDA graph; the same latents?"""
    network = bench.unet().eval()
    noise = noise_for(range(count), bench.size, 0, "bench").to(bench.device)
    latents, timesteps = noise.clone(), torch.zeros(count, dtype=torch.long, device=bench.device)
    output = torch.empty_like(noise)

    def forward() -> None:
        with torch.no_grad(), autocast(bench.precision, bench.device):
            output.copy_(network(latents, timesteps))

    def draw(model: Callable[..., torch.Tensor]) -> torch.Tensor:
        with torch.no_grad(), autocast(bench.precision, bench.device):
            return sample(training.PROCESS, model, noise, steps)

    with as_in_a_stage():
        replay = variants.graph_of(forward)

        def graphed(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            latents.copy_(noisy)
            timesteps.copy_(t)
            replay()
            return output

        spent = bench.seconds(lambda: draw(graphed), 3)
        bench.add(
            "ours, a CUDA graph of the network",
            count * steps / spent,
            "network calls/s",
            bench.scaled(SAMPLING),
        )
        same = torch.equal(draw(graphed), draw(network))
        bench.add("the graph draws the same bytes", float(same), "", 1.0)


def host(bench: Bench) -> None:
    """What the host does for a batch, and the batches alone, without a network."""
    latents = bench.latents(bench.batch * bench.few(16))
    rows = torch.randperm(len(latents))[: bench.batch]
    shape, stream = (bench.batch, *bench.size), generator(0, "host")

    def ms(name: str, run: Callable[[], object]) -> None:
        bench.add(f"{name}, batch {bench.batch}", 1e3 * bench.seconds(run), "ms")

    ms("gather rows", lambda: latents[rows])
    ms("noise on the host", lambda: torch.randn(shape, generator=stream))
    if bench.gpu:
        own, chosen = torch.Generator(bench.device).manual_seed(0), latents[rows]
        ms("pin rows", chosen.pin_memory)
        pinned = chosen.pin_memory()
        ms("copy pinned rows to the GPU", lambda: pinned.to(bench.device, non_blocking=True))
        ms("noise on the GPU", lambda: torch.randn(shape, generator=own, device=bench.device))
    before = torch.get_num_threads()
    for threads in (1, 2, 4, 8, 16):
        torch.set_num_threads(threads)
        ms(f"noise_for, {threads} threads", lambda: noise_for(range(bench.batch), bench.size, 0))
    torch.set_num_threads(before)
    setup = training.epoch_of(latents, bench.batch, bench.precision, bench.device)

    def alone() -> float:
        return len(latents) / bench.seconds(lambda: list(setup.epoch(1, setup.train)), 3)

    bench.add("batches alone", alone(), "images/s", bench.scaled(TRAINING))
    with mock.patch("advloop.training.batches.drawn_on", lambda _, stream: stream):
        bench.add("batches alone, noise drawn on the host", alone(), "images/s")


def other_networks(bench: Bench) -> None:
    """The discriminator's epoch and the encoding of images."""
    settings = bench.params.section("train_disc", TrainDiscParams).model_copy(update={"epochs": 1})
    model = bench.params.section("discriminator", DiscriminatorParams)
    latents = bench.latents(8 * bench.few(1024))
    racing = discriminator.contenders(model, settings, latents, bench.precision, bench.device)
    bench.part = "discriminator"
    compare(bench, racing, "latents", None)
    bench.part = "encoding"
    size = bench.params.section("data", DataParams).image_size
    stream = np.random.default_rng(0)
    images = stream.integers(256, size=(bench.few(2048), size, size, 3), dtype=np.uint8)
    autoencoder = bench.params.section("autoencoder", AutoencoderParams)
    batch = min(bench.params.section("encode_dataset", EncodeDatasetParams).batch_size, len(images))
    more = (batch, bench.precision, bench.device)
    ours, _, bare = encoding.contenders(autoencoder, images, *more)
    _, plain, _ = encoding.contenders(autoencoder, images[: bench.few(256)], *more)
    compare(bench, [ours, plain, bare], "images", None)

"""Whether torch.compile would pay for the U-Net, and whether it can be trusted here.

`python benchmarks/compiled.py` prints, for the shapes demo and full: what translating costs, how
much faster a training step and a forward are then, and by how much the gradients differ from those
of the plain network: the largest difference of a parameter's gradient over its largest entry, and
in how many parameters that is more than a hundredth. Rounding alone gives about 1e-6 in fp32.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import compare_paths  # noqa: F401  # finds advloop
import torch
from torch.nn import functional as F

from advloop.core.runtime import autocast, device, generator
from advloop.params.data import AutoencoderParams
from advloop.params.diffusion import UNetParams
from advloop.unet import Denoiser, build_unet, unet_config
from bench_subjects import quick_precision, shape_params

FLOOR = 1e-6  # gradients that are zero but for rounding, of a key's bias say, are not compared


def build(shape: str) -> Denoiser:
    params = shape_params(shape)
    autoencoder = params.section("autoencoder", AutoencoderParams)
    side = params.content.data.image_size // autoencoder.factor
    unet = params.section("unet", UNetParams)
    return build_unet(unet_config(unet, autoencoder.latent_channels, side), seed=0)


def gradients(
    network: Denoiser, noisy: torch.Tensor, target: torch.Tensor
) -> dict[str, torch.Tensor]:
    network.zero_grad(set_to_none=True)
    timesteps = torch.arange(len(noisy), device=noisy.device)
    F.mse_loss(network(noisy, timesteps), target).backward()
    return {name: w.grad for name, w in network.named_parameters() if w.grad is not None}


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[float]:
    """Of each parameter: the largest difference over the largest entry."""
    sizes = {name: float(gradient.abs().max()) for name, gradient in one.items()}
    return [
        float((one[name] - other[name]).abs().max()) / size
        for name, size in sizes.items()
        if size > FLOOR
    ]


def timed(run: Callable[[], object], where: torch.device, rounds: int) -> float:
    """Median seconds of ``run``."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        if where.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def measure(shape: str, batch: int, rounds: int, precision: str, where: torch.device) -> str:
    """The table's row of a shape."""
    plain = build(shape).to(where)
    compiled = copy.deepcopy(plain)
    compiled.unet.compile(dynamic=False)
    size = (2, batch, *plain.latent_shape)
    noisy, target = torch.randn(size, generator=generator(0, "compiled")).to(where)
    timesteps = torch.arange(batch, device=where)
    off = differences(gradients(plain, noisy, target), gradients(compiled, noisy, target))

    def step(network: Denoiser) -> None:
        with autocast(precision, where):
            gradients(network, noisy, target)

    def forward(network: Denoiser) -> None:
        with torch.no_grad(), autocast(precision, where):
            network(noisy, timesteps)

    cells = []
    translating = 0.0
    for run in (step, forward):
        translating += timed(partial(run, compiled), where, 1)
        run(plain)
        slow, quick = (timed(partial(run, network), where, rounds) for network in (plain, compiled))
        cells.append(f"{slow / quick:.2f}")
    wrong = f"{sum(error > 0.01 for error in off)} of {len(off)}"
    return " | ".join([shape, f"{translating:.0f}", *cells, f"{max(off):.1g}", wrong])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="demo,full", metavar="LIST", help="demo,full")
    parser.add_argument("--batch", type=int, default=32, help="latents a step")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    where = device()
    precision = quick_precision(where)
    print(f"{where.type}, speed in {precision}, gradients in fp32, torch {torch.__version__}\n")
    print("| shape | translating, s | training step | forward | worst gradient | off by over 1 % |")
    print("|---|---|---|---|---|---|")
    for shape in args.shapes.split(","):
        print(f"| {measure(shape, args.batch, args.rounds, precision, where)} |", flush=True)


if __name__ == "__main__":
    main()

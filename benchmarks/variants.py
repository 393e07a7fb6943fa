"""Other ways to compute the U-Net, beside the one that is shipped: do they pay, are they right?

`python benchmarks/variants.py` prints, for the shapes demo and full, how many times the speed of
the shipped network a training step and a forward reach (both in bf16 where that is the quicker
precision), what the first of each costs, and by how much the gradients in float32 differ from the
shipped ones: the largest difference of a parameter's gradient over its largest entry, and in how
many parameters that is more than a hundredth. Rounding alone gives about 1e-5. And what share of
the shipped step its convolutions are, and how much quicker they are than in float32.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import compare_paths  # noqa: F401  # finds advloop
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from advloop.core.runtime import autocast, device, generator
from advloop.params.data import AutoencoderParams
from advloop.params.diffusion import UNetParams
from advloop.unet import Denoiser, build_unet, layout, unet_config
from bench_subjects import quick_precision, shape_params

FLOOR = 1e-6  # gradients that are zero but for rounding, of a key's bias say, are not compared


def build(shape: str) -> Denoiser:
    params = shape_params(shape)
    autoencoder = params.section("autoencoder", AutoencoderParams)
    side = params.content.data.image_size // autoencoder.factor
    unet = params.section("unet", UNetParams)
    return build_unet(unet_config(unet, autoencoder.latent_channels, side), seed=0)


class CastNorm(nn.GroupNorm):
    """Cast to float32, normalised, and cast back, wherever it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()).to(x.dtype)


def shipped(unet: nn.Module, _: torch.device) -> nn.Module:
    return unet


def other_layout(unet: nn.Module, where: torch.device) -> nn.Module:
    """Channels last on a CPU, contiguous on a GPU."""
    return unet.to(memory_format=other(where))  # type: ignore[call-overload, no-any-return]  # torch's types lack it


def other(where: torch.device) -> torch.memory_format:
    last, plain = torch.channels_last, torch.contiguous_format
    return last if layout(where) == plain else plain


def cast_norms(unet: nn.Module, _: torch.device) -> nn.Module:
    for part in unet.modules():
        if isinstance(part, nn.GroupNorm):
            part.__class__ = CastNorm
    return unet


def other_layout_and_cast_norms(unet: nn.Module, where: torch.device) -> nn.Module:
    return cast_norms(other_layout(unet, where), where)


def compiled(unet: nn.Module, _: torch.device) -> nn.Module:
    unet.compile(dynamic=False)
    return unet


def bf16_weights(unet: nn.Module, _: torch.device) -> nn.Module:
    """For forwards alone: training keeps its weights in float32."""
    return unet.bfloat16()


VARIANTS = (
    shipped,
    other_layout,
    cast_norms,
    other_layout_and_cast_norms,
    compiled,
    bf16_weights,
)


class Race:
    """The variants of one shape, on one batch."""

    def __init__(self, shape: str, batch: int, precision: str, where: torch.device) -> None:
        plain = build(shape).placed(where)
        self.networks = {m.__name__: m(copy.deepcopy(plain.unet), where) for m in VARIANTS}
        size = (2, batch, *plain.latent_shape)
        noisy, self.target = torch.randn(size, generator=generator(0, "variants")).to(where)
        self.timesteps = torch.arange(batch, device=where)
        self.precision, self.where = precision, where
        ours, theirs = (noisy.contiguous(memory_format=f) for f in (layout(where), other(where)))
        self.noisy = {n: theirs if n.startswith("other") else ours for n in self.networks}

    def gradients(self, name: str) -> dict[str, torch.Tensor]:
        network = self.networks[name]
        network.zero_grad(set_to_none=True)
        output = network(self.noisy[name], self.timesteps, return_dict=False)[0]
        F.mse_loss(output.float(), self.target).backward()
        return {k: w.grad for k, w in network.named_parameters() if w.grad is not None}

    def step(self, name: str) -> None:
        with autocast(self.precision, self.where):
            self.gradients(name)

    def forward(self, name: str) -> None:
        whole = name == bf16_weights.__name__
        noisy = self.noisy[name].bfloat16() if whole else self.noisy[name]
        with torch.no_grad(), autocast("fp32" if whole else self.precision, self.where):
            self.networks[name](noisy, self.timesteps, return_dict=False)

    def timed(self, run: Callable[[str], None], name: str) -> float:
        began = time.perf_counter()
        run(name)
        if self.where.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def seconds(self, run: Callable[[str], None], rounds: int) -> dict[str, tuple[float, float]]:
        """(first, median of ``rounds`` in turns) of every variant that trains, or of all."""
        names = [n for n in self.networks if run != self.step or n != bf16_weights.__name__]
        first = {name: self.timed(run, name) for name in names}
        turns = [{name: self.timed(run, name) for name in names} for _ in range(rounds)]
        return {n: (first[n], statistics.median(turn[n] for turn in turns)) for n in names}


def convolutions(race: Race) -> str:
    """What the profiler says of the shipped step."""
    gpu = race.where.type == "cuda"
    seconds, share = {}, {}
    for precision in ("fp32", race.precision):
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        with profile(activities=activities) as found, autocast(precision, race.where):
            race.gradients(shipped.__name__)
        clock = "self_device_time_total" if gpu else "self_cpu_time_total"
        times = {event.key: getattr(event, clock) for event in found.key_averages()}
        seconds[precision] = sum(t for key, t in times.items() if "convolution" in key)
        share[precision] = seconds[precision] / sum(times.values())
    ratio = seconds["fp32"] / seconds[race.precision]
    return (
        f"Convolutions are {share[race.precision]:.0%} of the shipped step, and {ratio:.2f} times "
        "as quick as in float32."
    )


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[float]:
    """Of each parameter: the largest difference over the largest entry."""
    sizes = {name: float(gradient.abs().max()) for name, gradient in one.items()}
    return [
        float((one[name] - other[name]).abs().max()) / size
        for name, size in sizes.items()
        if size > FLOOR
    ]


def rows(shape: str, batch: int, rounds: int, precision: str, where: torch.device) -> list[str]:
    race = Race(shape, batch, precision, where)
    right = race.gradients(shipped.__name__)
    errors = {
        name: differences(right, race.gradients(name))
        for name in race.networks
        if name not in (shipped.__name__, bf16_weights.__name__)
    }
    steps, forwards = race.seconds(race.step, rounds), race.seconds(race.forward, rounds)
    found = []
    for name in race.networks:
        cells = [shape, name.replace("_", " ")]
        for seconds in (steps, forwards):
            cells.append(
                f"{seconds['shipped'][1] / seconds[name][1]:.2f}" if name in seconds else ""
            )
        cells.append(f"{steps.get(name, (0.0,))[0] + forwards[name][0]:.0f}")
        off = errors.get(name)
        cells.append(f"{max(off):.1g}" if off else "")
        cells.append(f"{sum(e > 0.01 for e in off)} of {len(off)}" if off else "")
        found.append(f"| {' | '.join(cells)} |")
    return [*found, f"\n{shape}: {convolutions(race)}\n"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="demo,full", metavar="LIST", help="demo,full")
    parser.add_argument("--batch", type=int, default=32, help="latents a step")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    where = device()
    precision = quick_precision(where)
    print(f"{where.type}, {precision}, batch {args.batch}, torch {torch.__version__}\n")
    for shape in args.shapes.split(","):
        print("| shape | variant | step | forward | first, s | worst gradient | over 1 % off |")
        print("|---|---|---|---|---|---|---|")
        print("\n".join(rows(shape, args.batch, args.rounds, precision, where)), flush=True)


if __name__ == "__main__":
    main()

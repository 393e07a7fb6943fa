"""Other ways to compute the U-Net than the shipped one: are they faster, are they right?

`python benchmarks/speed/variants.py` prints, for the shapes demo and full and in the faster
precision, the speed of a training step and of a forward pass as multiples of the shipped network's,
the seconds of the first calls, and how far the gradients in float32 are from the shipped ones: for
each parameter the largest difference over the largest entry, of which the table gives the worst,
and in how many parameters it is above 1 %. Rounding alone gives about 1e-5. Below the table: the
share of convolutions in the shipped step, and how much faster they are than in float32.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import _dynamo as dynamo
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from advloop.core.device import autocast, pick_device
from advloop.core.random import generator
from advloop.infra.output import print_safely
from advloop.models.denoiser import build_denoiser
from race import Contender, of, race
from shapes import fast_precision, shape_params, shape_unet, waiter

FLOOR = 1e-6  # smaller gradients are zero up to rounding (a key's bias): not compared


@dataclass(frozen=True)
class Variant:
    """A network and its inputs. trains: whether it can be trained as it is."""

    network: nn.Module
    noisy: torch.Tensor
    target: torch.Tensor
    precision: str
    trains: bool = True

    def gradients(self) -> dict[str, torch.Tensor]:
        self.network.zero_grad(set_to_none=True)
        F.mse_loss(self._output().float(), self.target).backward()
        return {k: w.grad for k, w in self.network.named_parameters() if w.grad is not None}

    def step(self) -> None:
        with autocast(self.precision, self.noisy.device):
            self.gradients()

    def forward(self) -> None:
        with torch.no_grad(), autocast(self.precision, self.noisy.device):
            self._output()

    def _output(self) -> torch.Tensor:
        timesteps = torch.arange(len(self.noisy), device=self.noisy.device)
        output: torch.Tensor = self.network(self.noisy, timesteps, return_dict=False)[0]
        return output


class CastNorm(nn.GroupNorm):
    """Normalises in float32 on every device, and casts back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()).to(x.dtype)


def shipped(one: Variant) -> Variant:
    return one


def channels_last(one: Variant) -> Variant:
    form = torch.channels_last
    one.network.to(memory_format=form)  # type: ignore[call-overload]  # torch's types lack it
    return replace(one, noisy=one.noisy.contiguous(memory_format=form))


def with_norms(one: Variant, kind: type[nn.GroupNorm]) -> Variant:
    """The variant whose normalisations compute as ``kind`` does."""
    for part in one.network.modules():
        if isinstance(part, nn.GroupNorm):
            part.__class__ = kind
    return one


def cast_norms(one: Variant) -> Variant:
    return with_norms(one, CastNorm)


def channels_last_and_cast_norms(one: Variant) -> Variant:
    return cast_norms(channels_last(one))


def compiled(one: Variant) -> Variant:
    one.network.compile(dynamic=False)
    return one


class QuickNorm(nn.GroupNorm):
    """Leaves its input's type to the kernel, whose sums are in float32, and autocast out of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


def quick_norms(one: Variant) -> Variant:
    return with_norms(one, QuickNorm)


def channels_last_and_quick_norms(one: Variant) -> Variant:
    return quick_norms(channels_last(one))


def compiled_norms(one: Variant) -> Variant:
    """Each normalisation, with its casts, becomes one or two kernels in any memory format."""
    dynamo.config.recompile_limit = 256  # all of them share one function, which has many shapes
    for part in one.network.modules():
        if isinstance(part, nn.GroupNorm):
            part.compile(dynamic=False)
    return one


def bf16_weights(one: Variant) -> Variant:
    """For forward passes only: training keeps its weights in float32."""
    one.network.bfloat16()
    for part in one.network.modules():
        if isinstance(part, nn.GroupNorm):
            part.float()
    return replace(one, noisy=one.noisy.bfloat16(), precision="fp32", trains=False)


VARIANTS = (
    shipped,
    channels_last,
    cast_norms,
    channels_last_and_cast_norms,
    compiled,
    bf16_weights,
)
GPU_VARIANTS = (
    shipped,
    channels_last,
    quick_norms,
    channels_last_and_quick_norms,
    bf16_weights,
    compiled_norms,
    compiled,
)
OURS = shipped.__name__
Maker = Callable[[Variant], Variant]


def title(make: Maker) -> str:
    return make.__name__.replace("_", " ")


def make_variants(
    shape: str, batch: int, precision: str, device: torch.device, makers: Sequence[Maker]
) -> dict[str, Variant]:
    """The variants of one shape by name, with the same batch."""
    plain = build_denoiser(shape_unet(shape_params(shape)), seed=0).to(device)
    size = (2, batch, *plain.latent_shape)
    noisy, target = torch.randn(size, generator=generator(0, "variants")).to(device)
    return {
        title(make): make(Variant(copy.deepcopy(plain.network), noisy, target, precision))
        for make in makers
    }


def seconds(
    shape: str, runs: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Seconds of every run: (first call, median of ``rounds`` in turns)."""
    wait = waiter(device)
    first = {}
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        wait()
        first[name] = time.perf_counter() - began
    racing = [Contender(name, run, 1.0, ours=name == OURS) for name, run in runs.items()]
    samples = race("variants", shape, racing, "runs", rounds, wait)
    return {
        name: (first[name], statistics.median(s.seconds for s in of(samples, name)))
        for name in runs
    }


def graph_of(run: Callable[[], object]) -> Callable[[], object]:
    """``run`` as a CUDA graph: the same kernels, which the GPU starts without the host."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def convolutions(one: Variant) -> str:
    """Their share of a step and their speed in it, by the profiler, as a sentence."""
    gpu = one.noisy.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    clock = "self_device_time_total" if gpu else "self_cpu_time_total"
    spent, share = {}, {}
    for precision in dict.fromkeys(("fp32", one.precision)):
        with profile(activities=activities) as found:
            replace(one, precision=precision).step()
        times = {event.key: getattr(event, clock) for event in found.key_averages()}
        spent[precision] = sum(t for key, t in times.items() if "convolution" in key)
        share[precision] = spent[precision] / sum(times.values())
    ratio = spent["fp32"] / spent[one.precision]
    return (
        f"Convolutions are {share[one.precision]:.0%} of the shipped step, and {ratio:.2f} times "
        "as fast as in float32."
    )


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[float]:
    """For each parameter of ``one``: the largest difference over its largest entry."""
    sizes = {name: float(gradient.abs().max()) for name, gradient in one.items()}
    return [
        float((one[name] - other[name]).abs().max()) / size
        for name, size in sizes.items()
        if size > FLOOR
    ]


def rows(shape: str, batch: int, rounds: int, precision: str, device: torch.device) -> list[str]:
    found = make_variants(shape, batch, precision, device, VARIANTS)
    trained = {name: one for name, one in found.items() if one.trains}
    right = found[OURS].gradients()
    errors = {n: differences(right, v.gradients()) for n, v in trained.items() if n != OURS}
    steps = seconds(shape, {n: v.step for n, v in trained.items()}, rounds, device)
    forwards = seconds(shape, {n: v.forward for n, v in found.items()}, rounds, device)
    lines = []
    for name in found:
        cells = [shape, name]
        for times in (steps, forwards):
            cells.append(f"{times[OURS][1] / times[name][1]:.2f}" if name in times else "")
        cells.append(f"{steps.get(name, (0.0,))[0] + forwards[name][0]:.0f}")
        off = errors.get(name)
        cells.append(f"{max(off):.1g}" if off else "")
        cells.append(f"{sum(e > 0.01 for e in off)} of {len(off)}" if off else "")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, f"\n{shape}: {convolutions(found[OURS])}\n"]


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="demo,full", metavar="LIST", help="demo,full")
    parser.add_argument("--batch", type=int, default=32, help="latents a step")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    device = pick_device()
    precision = fast_precision(device)
    print(f"{device.type}, {precision}, batch {args.batch}, torch {torch.__version__}\n")
    for shape in args.shapes.split(","):
        print("| shape | variant | step | forward | first, s | worst gradient | above 1 % |")
        print("|---|---|---|---|---|---|---|")
        print("\n".join(rows(shape, args.batch, args.rounds, precision, device)), flush=True)


if __name__ == "__main__":
    main()

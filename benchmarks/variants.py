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
from dataclasses import dataclass, replace

import compare_paths  # noqa: F401  # finds advloop
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from advloop.core.runtime import autocast, device, generator
from advloop.unet import build_unet, layout
from bench_subjects import quick_precision, shape_params, shape_unet, waiter
from race import Contender, of, race

FLOOR = 1e-6  # gradients that are zero but for rounding, of a key's bias say, are not compared


@dataclass(frozen=True)
class Variant:
    """A network and what it is given. trains: whether its weights are those of training."""

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
    """Cast to float32, normalised, and cast back, wherever it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()).to(x.dtype)


def shipped(one: Variant) -> Variant:
    return one


def other_layout(one: Variant) -> Variant:
    """Channels last on a CPU, contiguous on a GPU."""
    last, plain = torch.channels_last, torch.contiguous_format
    form = last if layout(one.noisy.device) == plain else plain
    one.network.to(memory_format=form)  # type: ignore[call-overload]  # torch's types lack it
    return replace(one, noisy=one.noisy.contiguous(memory_format=form))


def cast_norms(one: Variant) -> Variant:
    for part in one.network.modules():
        if isinstance(part, nn.GroupNorm):
            part.__class__ = CastNorm
    return one


def other_layout_and_cast_norms(one: Variant) -> Variant:
    return cast_norms(other_layout(one))


def compiled(one: Variant) -> Variant:
    one.network.compile(dynamic=False)
    return one


def bf16_weights(one: Variant) -> Variant:
    """For forwards alone: training keeps its weights in float32."""
    one.network.bfloat16()
    return replace(one, noisy=one.noisy.bfloat16(), precision="fp32", trains=False)


VARIANTS = (
    shipped,
    other_layout,
    cast_norms,
    other_layout_and_cast_norms,
    compiled,
    bf16_weights,
)
OURS = shipped.__name__


def make_variants(
    shape: str, batch: int, precision: str, where: torch.device
) -> dict[str, Variant]:
    """Those of one shape, by their names, on one batch."""
    plain = build_unet(shape_unet(shape_params(shape)), seed=0).placed(where)
    size = (2, batch, *plain.latent_shape)
    noisy, target = torch.randn(size, generator=generator(0, "variants")).to(where)
    noisy = noisy.contiguous(memory_format=layout(where))
    return {
        make.__name__.replace("_", " "): make(
            Variant(copy.deepcopy(plain.unet), noisy, target, precision)
        )
        for make in VARIANTS
    }


def seconds(
    shape: str, runs: dict[str, Callable[[], object]], rounds: int, where: torch.device
) -> dict[str, tuple[float, float]]:
    """(first, median of ``rounds`` in turns) of every run."""
    wait = waiter(where)
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


def convolutions(one: Variant) -> str:
    """What the profiler says of a step."""
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
    found = make_variants(shape, batch, precision, where)
    trained = {name: one for name, one in found.items() if one.trains}
    right = found[OURS].gradients()
    errors = {n: differences(right, v.gradients()) for n, v in trained.items() if n != OURS}
    steps = seconds(shape, {n: v.step for n, v in trained.items()}, rounds, where)
    forwards = seconds(shape, {n: v.forward for n, v in found.items()}, rounds, where)
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

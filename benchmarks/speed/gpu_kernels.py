"""Where a GPU's time goes, and what other kernels would bring; parts of gpu.py."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import training
import variants
from advloop.training.diffusion import train_diffusion
from gpu_bench import Bench, as_in_a_stage, cudnn
from gpu_speed import our_training


def flags(bench: Bench) -> None:
    """The shipped step with each choice of kernels."""
    one = variants.make_variants(
        bench.shape, bench.batch, bench.precision, bench.device, (variants.shipped,)
    )[variants.OURS]

    def step(name: str) -> None:
        bench.add(f"step, {name}", 1e3 * bench.seconds(one.step, bench.few(10)), "ms")

    with as_in_a_stage():
        step("deterministic, as stages ask for")
    step("torch's choice")
    with cudnn(benchmark=True):
        step("cudnn.benchmark")
    with as_in_a_stage(), cudnn(benchmark=True):
        step("cudnn.benchmark and deterministic")


def variant(make: variants.Maker) -> Callable[[Bench], None]:
    """A part: the variant's step and forward, with and without a graph, and its gradients."""

    def part(bench: Bench) -> None:
        name = variants.title(make)
        shape = (bench.few(32), "fp32", bench.device)
        right, small = (
            variants.make_variants("demo", *shape, (one,))[variants.title(one)]
            for one in (variants.shipped, make)
        )
        one = variants.make_variants(
            bench.shape, bench.batch, bench.precision, bench.device, (make,)
        )[name]
        runs = {"step": one.step, "forward": one.forward}
        if not one.trains:
            del runs["step"]
        for what, run in runs.items():
            began = time.perf_counter()
            run()
            bench.wait()
            bench.add(f"{name}, first {what}", time.perf_counter() - began, "s")
            spent = bench.seconds(run, bench.few(10))
            bench.add(f"{name}, {what}", 1e3 * spent, "ms")
            bench.add(f"{name}, {what}", bench.batch / spent, "latents/s")
        for what, run in runs.items() if bench.gpu else ():
            spent = bench.seconds(variants.graph_of(run), bench.few(10))
            bench.add(f"{name}, {what}, CUDA graph", 1e3 * spent, "ms")
        if one.trains:
            off = variants.differences(right.gradients(), small.gradients())
            bench.add(f"{name}, worst gradient of demo in fp32", max(off), "relative")
            above = sum(error > 0.01 for error in off)
            bench.add(f"{name}, gradients above 1 % of {len(off)}", float(above), "")

    return part


def profile(bench: Bench) -> None:
    """The kernels of some training steps, and how long the GPU had nothing to do."""
    kind = torch.profiler.ProfilerActivity
    steps = bench.few(8)
    setup = training.epoch_of(
        bench.latents(bench.batch * steps), bench.batch, bench.precision, bench.device
    )
    network = bench.unet()
    with as_in_a_stage():
        train_diffusion(setup, network, lambda items: items, lambda *_: None)
        activities = [kind.CUDA] if bench.gpu else [kind.CPU]
        with torch.profiler.profile(activities=activities) as found:
            train_diffusion(setup, network, lambda items: items, lambda *_: None)
            bench.wait()
    wanted = "CUDA" if bench.gpu else "CPU"
    events = [event for event in found.events() or [] if event.device_type.name == wanted]
    report_kernels(bench, [(e.name, e.time_range.start, e.time_range.end) for e in events], steps)
    _, images, _ = our_training(bench, bench.batch, steps)
    bench.add("a step without the profiler", 1e3 * bench.batch / images, "ms")


GROUPS = {  # the first that matches
    "weights: AdamW, average, clipping": ("multi_tensor", "adam", "lerp", "foreach"),
    "copies host to GPU": ("memcpy htod",),
    "normalisation": ("groupnorm", "group_norm", "rowwisemoments", "computefused", "gammabeta"),
    "layout and casts": ("nchwtonhwc", "nhwctonchw", "copy", "transpose", "memcpy"),
    "convolutions and products": ("conv", "gemm", "xmma", "cutlass", "cudnn", "wgrad", "nvjet"),
    "random numbers": ("distribution", "philox"),
    "elementwise": ("elementwise",),
}


def report_kernels(bench: Bench, events: list[tuple[str, float, float]], steps: int) -> None:
    """events: (name, start, end) in microseconds. The ends of the profile are start and close."""
    first, last = min(e[1] for e in events), max(e[2] for e in events)
    window = (first + (last - first) / 4, last - (last - first) / 4)
    busy, reached = 0.0, window[0]
    totals: dict[str, float] = {}
    for name, start, end in sorted(events, key=lambda event: event[1]):
        totals[name] = totals.get(name, 0.0) + end - start
        start, end = max(start, reached), min(end, window[1])
        if end > start:
            busy, reached = busy + end - start, end
    bench.add("idle in the middle of the profile", 1 - busy / (window[1] - window[0]), "of time")
    bench.add("kernels a step", sum(totals.values()) / steps / 1e3, "ms")
    groups: dict[str, float] = {}
    for name, spent in totals.items():
        known = (g for g, words in GROUPS.items() if any(w in name.lower() for w in words))
        group = next(known, "other")
        groups[group] = groups.get(group, 0.0) + spent
    for group, spent in sorted(groups.items(), key=lambda item: -item[1]):
        bench.add(f"group {group}", spent / steps / 1e3, "ms a step")
    for name, spent in sorted(totals.items(), key=lambda item: -item[1])[:15]:
        count = sum(event[0] == name for event in events)
        bench.note(f"{spent / steps / 1e3:9.3f} ms {count / steps:6.1f} calls a step  {name[:110]}")

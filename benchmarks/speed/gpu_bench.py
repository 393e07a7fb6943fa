"""What the parts of gpu.py share: shapes, sizes, figures, targets, clocks."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from advloop.core.device import deterministic
from advloop.core.random import noise_for
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.params.loader import Params
from advloop.params.training import BaseParams
from race import Contender, Sample, of, race
from shapes import shape_params, shape_unet, waiter
from tables import machine_name

H200_PEAK = 788e12  # bf16 FLOP/s of an 8192³ product of random matrices, measured
TRAINING, SAMPLING = 15_000.0, 40_000.0  # images and network calls a second
OF_PLAIN, OF_BARE = 3.0, 0.95


@dataclass(frozen=True)
class Figure:
    """One measured value. target: the least that it should be, or None."""

    part: str
    name: str
    value: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        text = f"  {self.name:<58} {self.value:>12,.4g} {self.unit}"
        if self.target is not None:
            share = self.value / self.target
            verdict = "met" if share >= 1 else f"missed, {share:.0%} of it"
            text += f"   target {self.target:,.4g}: {verdict}"
        return text


@dataclass
class Bench:
    """What the parts share: shapes, sizes, and where figures go."""

    device: torch.device
    out: Path
    tiny: bool
    peak: float = H200_PEAK  # until it is measured
    precision: str = "bf16"
    part: str = ""
    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shape = "demo" if self.tiny else "full"
        self.params: Params = shape_params(self.shape)
        self.config: dict[str, Any] = shape_unet(self.params)
        self.batch = self.few(self.params.section("base", BaseParams).batch_size)

    def wait(self) -> None:
        """Until the device has finished its work."""
        waiter(self.device)()

    def few(self, count: int) -> int:
        """``count``, or next to nothing in a tiny run."""
        return min(count, 4) if self.tiny else count

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def size(self) -> tuple[int, int, int]:
        side = self.config["sample_size"]
        return self.config["in_channels"], side, side

    def latents(self, count: int) -> torch.Tensor:
        """(count, C, H, W), of which a thousand differ."""
        found = noise_for(range(min(count, 1024)), self.size, 0, "gpu")
        return found.repeat(-(-count // len(found)), 1, 1, 1)[:count]

    def unet(self) -> Denoiser:
        return build_denoiser(self.config, seed=0).to(self.device)

    def scaled(self, target: float) -> float:
        """An H200's target, for a GPU of this peak."""
        return target * self.peak / H200_PEAK

    def add(self, name: str, value: float, unit: str, target: float | None = None) -> None:
        figure = Figure(self.part, name, value, unit, target)
        self.figures.append(figure)
        print(figure, flush=True)
        self.save()

    def note(self, text: str) -> None:
        self.notes[self.part] = f"{self.notes.get(self.part, '')}{text}\n"
        print(text, flush=True)

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        figures = [asdict(figure) for figure in self.figures]
        content = {"machine": machine_name(self.device), "figures": figures, "notes": self.notes}
        (self.out / "gpu.json").write_text(json.dumps(content, indent=1, ensure_ascii=False))

    def seconds(self, run: Callable[[], object], repeats: int = 5) -> float:
        """Median seconds of ``run``, after a first call."""
        found = []
        for _ in range(repeats + 1):
            self.wait()
            began = time.perf_counter()
            run()
            self.wait()
            found.append(time.perf_counter() - began)
        return statistics.median(found[1:])


@contextmanager
def as_in_a_stage() -> Iterator[None]:
    """The kernels that stages ask for; afterwards torch's own choice, as in a plain loop."""
    deterministic()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def cudnn(**flags: bool) -> Iterator[None]:
    """Flags of torch.backends.cudnn; afterwards they are as before."""
    before = {name: getattr(torch.backends.cudnn, name) for name in flags}
    try:
        for name, value in flags.items():
            setattr(torch.backends.cudnn, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(torch.backends.cudnn, name, value)


def staged(one: Contender) -> Contender:
    def run() -> None:
        with as_in_a_stage():
            one.run()

    return replace(one, run=run) if one.ours else one


def rate(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(s.units / s.seconds for s in of(samples, name))


def compare(bench: Bench, racing: Sequence[Contender], unit: str, least: float | None) -> float:
    """Rates of a race, then ours over each. least: the target of our rate, which it returns."""
    racing = [staged(one) for one in racing]
    samples = race(bench.part, bench.shape, racing, unit, bench.few(2), bench.wait)
    ours = rate(samples, "advloop")
    for one in racing:
        target = least if one.ours else None
        bench.add(one.name, rate(samples, one.name), f"{unit}/s", target)
    for one in racing:
        if not one.ours:
            target = OF_BARE if "bare" in one.name else OF_PLAIN
            bench.add(f"ours / {one.name}", ours / rate(samples, one.name), "×", target)
    return ours

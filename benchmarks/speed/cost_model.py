"""The cost of a step of scale full in FLOPs, memory and bytes sent, and what follows for many GPUs.

`python benchmarks/speed/cost_model.py` prints the tables of docs/scaling.md. The networks are
counted; the rest is arithmetic over the numbers in ``Machine``. Nothing was measured on GPUs.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from advloop.models.denoiser import Denoiser, unet_config
from advloop.models.discriminator import Discriminator
from advloop.params.data import VARIANTS
from advloop.params.diffusion import UNetParams
from advloop.params.loader import Params
from shapes import ROOT

FULL = ROOT / "conf/scale/full.yaml"
ROWS_A_SHARD = 16_384


@dataclass(frozen=True)
class Machine:
    """Assumed, except the numbers with a command: that ran on one core of an AVX2 machine.

    flops: of a GPU on these small convolutions, a fifth of an H100's dense bf16 peak.
    launch: seconds a step that do not shrink with the batch (kernel launches, the update).
    inside, across: bytes a second of a ring all-reduce inside a node and across nodes.
    """

    flops: float = 200e12
    launch: float = 0.015
    inside: float = 200e9
    across: float = 25e9
    gpus_a_node: int = 8
    bucket: float = 25e6  # bytes; the last one is sent after the backward pass has ended
    disk: float = 2e9  # bytes a second, read in order
    normals: float = 8e-9  # seconds a random normal: torch.randn(64, 16, 32, 32, generator=g)
    md5: float = 0.55e9  # bytes a second, DVC's hash: hashlib.md5 over 64 MiB
    sha256: float = 1.55e9  # bytes a second, the fingerprint's: hashlib.sha256 over 64 MiB


@dataclass(frozen=True)
class Work:
    """Sizes of the networks and of one latent or image. forward: FLOPs of the U-Net a latent."""

    parameters: int
    forward: float
    disc_parameters: int
    disc_forward: float
    latent: int  # numbers
    image: int  # bytes

    @property
    def latent_bytes(self) -> int:
        return 4 * self.latent


def forward_flops(model: torch.nn.Module, *inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return float(counter.get_total_flops())


def count_work(content: Any) -> Work:
    """Counts the networks of a scale's ``content``, without allocating them."""
    plain: Any = OmegaConf.to_container(content)
    params = Params(plain, FULL)
    channels, size = content.autoencoder.latent_channels, content.data.image_size
    side = size // content.autoencoder.factor
    with torch.device("meta"):
        unet = Denoiser(unet_config(params.section("unet", UNetParams), channels, side))
        disc = Discriminator(channels, list(content.discriminator.channels), 0.0)
        latent = torch.empty(1, channels, side, side)
        forward = forward_flops(unet, latent, torch.zeros(1, dtype=torch.long))
        disc_forward = forward_flops(disc, latent)
    return Work(
        parameters=sum(p.numel() for p in unet.parameters()),
        forward=forward,
        disc_parameters=sum(p.numel() for p in disc.parameters()),
        disc_forward=disc_forward,
        latent=latent.numel(),
        image=3 * size**2,
    )


def all_reduce_seconds(size: float, gpus: int, machine: Machine) -> float:
    """A ring all-reduce of ``size`` bytes: each GPU sends 2 (gpus - 1) / gpus times as many."""
    if gpus == 1:
        return 0.0
    speed = machine.inside if gpus <= machine.gpus_a_node else machine.across
    return 2 * (gpus - 1) / gpus * size / speed


def step_seconds(work: Work, rows: float, gpus: int, machine: Machine) -> float:
    """One step of the noise loss over ``rows`` latents a GPU.

    Gradients are sent during the backward pass, which is two thirds of the work. The step waits for
    what does not fit there, and at least for the last bucket.
    """
    compute = 3 * work.forward * rows / machine.flops
    size = 4.0 * work.parameters
    sent = all_reduce_seconds(size, gpus, machine)
    last = all_reduce_seconds(min(machine.bucket, size), gpus, machine)
    waited = max(last, sent - 2 / 3 * compute) if gpus > 1 else 0.0
    return machine.launch + compute + waited


def table(head: str, rows: list[list[str]]) -> str:
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def step_table(work: Work) -> str:
    """FLOPs, memory and traffic for one row or one GPU."""
    mega = 4 * work.parameters / 1e6
    forward = work.forward / 1e9
    reference = "reference's forward of both"
    return table(
        "| what | how it is counted | figure |",
        [
            ["U-Net", "parameters", f"{work.parameters / 1e6:.1f} M"],
            ["forward of one latent, F", "counted by torch", f"{forward:.1f} GFLOP"],
            ["training row of `none`", "forward and backward, 3 F", f"{3 * forward:.1f} GFLOP"],
            [
                "training row of `ddo`",
                f"a real and a fake one, 6 F; {reference}, 2 F",
                f"{8 * forward:.1f} GFLOP",
            ],
            ["DDIM sample of 100 steps", "100 F", f"{100 * forward / 1e3:.2f} TFLOP"],
            [
                "discriminator row",
                f"3 × {work.disc_forward / 1e9:.2f} GFLOP, {work.disc_parameters / 1e6:.1f} M "
                "parameters",
                f"{3 * work.disc_forward / 1e9:.2f} GFLOP",
            ],
            [
                "memory beside activations, each GPU",
                "weights, gradient, two moments, average: 20 bytes a parameter",
                f"{5 * mega / 1e3:.2f} GB",
            ],
            ["… of `ddo`", "and the reference: 24 bytes", f"{6 * mega / 1e3:.2f} GB"],
            [
                "sent a step by each of W GPUs",
                "the fp32 gradient in a ring, 2 (W - 1) / W × 4 bytes a parameter",
                f"{2 * 7 / 8 * mega:.0f} MB (W = 8), {2 * 63 / 64 * mega:.0f} MB (W = 64)",
            ],
            [
                "read a row",
                f"a latent in fp32, {work.latent:,} numbers",
                f"{work.latent_bytes / 1024:.0f} KiB",
            ],
        ],
    )


def efficiency_table(work: Work, batch: int, machine: Machine) -> str:
    """Predicted rates and efficiencies; one GPU has an efficiency of 1."""
    rows = []
    one = batch / step_seconds(work, batch, 1, machine)
    for name, shared in (
        (f"{batch} in all, as `base.batch_size` says", True),
        (f"{batch} a GPU", False),
    ):
        for gpus in (1, 8, 64):
            local = batch / gpus if shared else batch
            seconds = step_seconds(work, local, gpus, machine)
            rate = gpus * local / seconds
            cells = [name, str(gpus), f"{local:g}", f"{1000 * seconds:.0f}", f"{rate:,.0f}"]
            rows.append([*cells, f"{rate / one / gpus:.0%}"])
    return table("| rows a step | GPUs | rows a GPU | ms a step | rows/s | efficiency |", rows)


def generation_table(work: Work, generate: Any, machine: Machine) -> str:
    """GPUs take whole batches, and wait for each other only at the end."""
    count, batch, steps = generate.num_samples, generate.batch_size, generate.num_inference_steps
    rows = []
    for gpus in (1, 8, 64):
        for size in dict.fromkeys((batch, min(batch, math.ceil(count / gpus)))):
            turns = math.ceil(math.ceil(count / size) / gpus)
            even = count / size / gpus
            seconds = turns * steps * max(machine.launch / 3, work.forward * size / machine.flops)
            rows.append([str(gpus), str(size), str(turns), f"{seconds:.1f}", f"{even / turns:.0%}"])
    return table("| GPUs | batch | batches in turn | seconds | share of GPUs at work |", rows)


def growth_table(work: Work, variants: int, machine: Machine) -> str:
    """What grows with the number of images: bytes, and the time to read or hash them once."""
    rows: list[list[str]] = []
    counts = (1e6, 1e8)

    def row(name: str, each: float, unit: float, suffix: str, digits: int = 2) -> None:
        rows.append([name, *(f"{each * n / unit:,.{digits}f} {suffix}" for n in counts)])

    latents = variants * work.latent_bytes
    row("`images.npy`", work.image, 1e12, "TB")
    row(f"`train.pt`, {variants} orientations, fp32", latents, 1e12, "TB")
    row("… while it is written: scratch file and result", 2 * latents, 1e12, "TB")
    row("… read once, before the first step", latents / machine.disk, 3600, "h")
    row("… hashed once by DVC, one core", latents / machine.md5, 3600, "h")
    row("… hashed once by the fingerprint, one core", latents / machine.sha256, 3600, "h")
    row("one orientation, turned when it is read; bf16", work.latent_bytes / 2, 1e12, "TB")
    row(f"… shards of {ROWS_A_SHARD:,} rows", 1 / ROWS_A_SHARD, 1, "shards", 0)
    row("names of the images in memory, 300 bytes each", 300, 1e9, "GB")
    row("an epoch's order of rows, 8 bytes a row", 8 * variants, 1e9, "GB")
    return table("| what | 10^6 images | 10^8 images |", rows)


def host_lines(work: Work, batch: int, machine: Machine) -> str:
    draws = batch * work.latent * machine.normals
    step = step_seconds(work, batch, 1, machine)
    return (
        f"A step of {batch} rows takes {1000 * draws:.0f} ms of one core for its noise and "
        f"{batch * work.latent_bytes / 1e6:.0f} MB of latents; the GPU is predicted to take "
        f"{1000 * step:.0f} ms.\n"
        f"A shard of {ROWS_A_SHARD:,} rows in bf16 is "
        f"{ROWS_A_SHARD * work.latent_bytes / 2**31:.2f} GiB.\n"
    )


def tables() -> str:
    """All tables, as in docs/scaling.md."""
    content: Any = OmegaConf.load(FULL)
    work, machine = count_work(content), Machine()
    batch, generate = content.base.batch_size, content.generate
    return "\n".join(
        [
            "### A step\n",
            step_table(work),
            "### Training on W GPUs (predicted)\n",
            efficiency_table(work, batch, machine),
            host_lines(work, batch, machine),
            f"### Generating {generate.num_samples:,} samples (predicted)\n",
            generation_table(work, generate, machine),
            "### Ever more images (predicted)\n",
            growth_table(work, VARIANTS[content.encode_dataset.augment], machine),
        ]
    )


if __name__ == "__main__":
    print(tables())

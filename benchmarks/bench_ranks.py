"""A training epoch and a round of generation by two processes, beside one with their threads."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from torch.multiprocessing.spawn import start_processes

from advloop.core import ranks
from advloop.core.io import read_json, write_json
from advloop.core.runtime import batches, eval_mode
from advloop.diffusion_training import train_diffusion
from advloop.sampling import noise_for, sample_ddim
from advloop.unet import build_unet
from bench_subjects import shape_params, shape_unet
from bench_training import DIFFUSION, epoch_of
from race import Sample

LAYOUTS = {  # processes, threads of each
    "2 processes, 1 thread each": (2, 1),
    "1 process, 1 thread": (1, 1),
    "1 process, 2 threads": (1, 2),
}
EACH = 3  # times that a layout's processes do the work before they end
BATCH = {"demo": 64, "full": 32}
STEPS = {"demo": 8, "full": 1}
DDIM_STEPS = {"demo": 5, "full": 1}


def _work(index: int, count: int, threads: int, shape: str, result: Path) -> None:
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(count)}
    torch.set_num_threads(threads)
    ranks.join()
    model = build_unet(shape_unet(shape_params(shape)), seed=0)
    batch = BATCH[shape]
    latents = noise_for(range(batch * STEPS[shape]), model.latent_shape, 0)
    setup = epoch_of(latents, batch, "fp32", torch.device("cpu"))

    def draw(part: range) -> torch.Tensor:
        noise = noise_for(part, model.latent_shape, 0)
        alphas_cumprod, kind = setup.criterion.alphas_cumprod, DIFFUSION.prediction_type
        return sample_ddim(model, noise, alphas_cumprod, kind, DDIM_STEPS[shape])

    def train() -> None:
        train_diffusion(setup, model, lambda items: items, lambda *_: None)

    def generate() -> None:
        with eval_mode(model):
            list(ranks.in_turns(batches(2 * batch, batch), draw))

    found: dict[str, list[tuple[float, float]]] = {"training": [], "generation": []}
    for number in range(EACH + 1):
        for subject, run in (("training", train), ("generation", generate)):
            ranks.barrier()
            began, cpu = time.perf_counter(), time.process_time()
            run()
            ranks.barrier()
            if number:
                spent = time.perf_counter() - began, (time.process_time() - cpu) * count
                found[subject].append(spent)
    if ranks.rank() == 0:
        write_json(result, found)
    ranks.leave()


def measure(rounds: int) -> list[Sample]:
    """``rounds`` in which each layout's processes start once, in an order that turns."""
    samples: list[Sample] = []
    names = list(LAYOUTS)
    for shape in STEPS:
        for number in range(rounds):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                samples += _samples(shape, name, number)
        print(f"  {shape} done", flush=True)
    return samples


def _samples(shape: str, name: str, number: int) -> list[Sample]:
    count, threads = LAYOUTS[name]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ranks.free_port())}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.json"
        start_processes(_work, (count, threads, shape, result), count, start_method="spawn")
        found = read_json(result)
    units = {"training": BATCH[shape] * STEPS[shape], "generation": 2 * BATCH[shape]}
    return [
        Sample(
            subject="ranks",
            shape=f"{shape}, {subject}",
            contender=name,
            ours=count > 1,
            round=number * EACH + index,
            seconds=seconds,
            cpu=cpu,
            units=units[subject],
            unit="latents",
        )
        for subject, spent in found.items()
        for index, (seconds, cpu) in enumerate(spent)
    ]

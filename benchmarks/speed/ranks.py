"""A training epoch and a round of generation: by two processes, and by one with their threads."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from torch.multiprocessing.spawn import start_processes

from advloop.core import distributed
from advloop.core.device import eval_mode
from advloop.core.files import read_json, write_json
from advloop.core.processes import free_port, launch_variables
from advloop.core.random import batches, noise_for
from advloop.diffusion.sampling import sample
from advloop.models.denoiser import build_denoiser
from advloop.training.diffusion import train_diffusion
from race import Sample
from shapes import shape_params, shape_unet
from training import PROCESS, epoch_of

LAYOUTS = {  # processes, threads in each
    "2 processes, 1 thread each": (2, 1),
    "1 process, 1 thread": (1, 1),
    "1 process, 2 threads": (1, 2),
}
EACH = 3  # measured repeats before a layout's processes end
BATCH = {"demo": 64, "full": 32}
STEPS = {"demo": 8, "full": 1}
DDIM_STEPS = {"demo": 5, "full": 1}


def _work(index: int, count: int, port: int, threads: int, shape: str, result: Path) -> None:
    os.environ |= launch_variables(index, count, port)
    torch.set_num_threads(threads)
    distributed.join()
    model = build_denoiser(shape_unet(shape_params(shape)), seed=0)
    batch = BATCH[shape]
    latents = noise_for(range(batch * STEPS[shape]), model.latent_shape, 0)
    setup = epoch_of(latents, batch, "fp32", torch.device("cpu"))

    def draw(part: range) -> torch.Tensor:
        noise = noise_for(part, model.latent_shape, 0)
        return sample(PROCESS, model, noise, DDIM_STEPS[shape])

    def train() -> None:
        train_diffusion(setup, model, lambda items: items, lambda *_: None)

    def generate() -> None:
        with eval_mode(model):
            list(distributed.map_across_processes(draw, batches(2 * batch, batch)))

    found: dict[str, list[tuple[float, float]]] = {"training": [], "generation": []}
    for number in range(EACH + 1):
        for subject, run in (("training", train), ("generation", generate)):
            distributed.barrier()
            began, cpu = time.perf_counter(), time.process_time()
            run()
            distributed.barrier()
            if number:
                spent = time.perf_counter() - began, (time.process_time() - cpu) * count
                found[subject].append(spent)
    if distributed.rank() == 0:
        write_json(result, found)
    distributed.leave()


def measure(rounds: int) -> list[Sample]:
    """Start the processes of each layout once a round, in rotating order."""
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
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.json"
        start_processes(
            _work, (count, free_port(), threads, shape, result), count, start_method="spawn"
        )
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

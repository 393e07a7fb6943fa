"""Memory of a training step of a large transformer: what is counted, and what it takes.

    python benchmarks/speed/step_memory.py

Each case trains two steps of a new DiT-B/2 (Peebles & Xie 2023, table 1) on random latents, in a
process of its own on the CPU, and the table of docs/scaling.md is made of what it measured.
`make check-model` counts as ``step_bytes`` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from advloop.core.files import write_json
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.processes import process_of
from advloop.evaluation.summary import markdown
from advloop.infra.output import print_safely
from advloop.models.denoiser import Denoiser, build_denoiser, dit_config, frozen_copy
from advloop.objectives import recipe_of
from advloop.params.diffusion import DiTParams, FlowParams
from advloop.params.training import TrainingParams
from advloop.training.batches import Side
from advloop.training.diffusion import Setup, train_diffusion
from advloop.training.weights import step_bytes, trained_weights
from memory import memory_of
from shapes import ROOT

FILE = ROOT / "docs/benchmarks/step_memory.json"
CHECKPOINTING = "ADVLOOP_GRADIENT_CHECKPOINTING"
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the kernel at once
CHANNELS, SIDE, ROWS, RANK = 4, 32, 2, 16
WIDE = DiTParams(patch_size=2, num_layers=12, num_attention_heads=12, attention_head_dim=64)
TINY = DiTParams(patch_size=2, num_layers=1, num_attention_heads=1, attention_head_dim=4)
PARAMS = TrainingParams(
    epochs=1,
    samples_per_epoch=2 * ROWS,
    batch_size=ROWS,
    learning_rate=1e-4,
    warmup_steps=0,
    ema_decay=0.99,
    grad_clip=1.0,
    eval_interval=1,
)
CASES = [  # objective, rank, gradient checkpointing
    *[("none", rank, spared) for rank in (None, RANK) for spared in (False, True)],
    *[("ddo", rank, False) for rank in (None, RANK)],
]


@dataclass(frozen=True)
class StepMemory:
    """Of one case, in bytes. counted: without activations; peak: above the process's start."""

    objective: str
    rank: int | None
    checkpointing: bool
    weights: int  # a number, not bytes
    trained: int  # the same
    counted: int
    activations: int
    peak: int


def kept(denoiser: Denoiser, noisy: torch.Tensor, time: torch.Tensor) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass."""
    storages: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        denoiser(noisy, time)
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    return sum(size for storage, size in storages.items() if storage not in weights)


def measure(objective: str, rank: int | None, checkpointing: bool) -> StepMemory:
    """Two steps, as stage train_diffusion makes them, in this process."""
    content: Any = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/objective/{objective}.yaml"))
    recipe = recipe_of(objective)
    params: Any = recipe.params(**content.get("objective", content))
    tiny = build_denoiser(dit_config(TINY, CHANNELS, SIDE), seed=0)  # imports diffusers
    tiny.add_adapter(1, 0)  # and peft, a third of a GiB
    started = memory_of(os.getpid())["VmRSS"]
    denoiser = build_denoiser(dit_config(WIDE, CHANNELS, SIDE), seed=0)
    if rank is not None:
        denoiser.requires_grad_(False)
    reference = frozen_copy(denoiser) if recipe.against_reference else None
    if rank is not None:
        denoiser.add_adapter(rank, 0, "adapter")
    flow = FlowParams(process="flow", num_train_timesteps=1000, shift=1.0)
    criterion = Criterion(
        objective=recipe.make(params),
        weight=params.weight,
        discriminator=None,
        process=process_of(flow),
        precision="fp32",
        device=torch.device("cpu"),
        reference=reference,
    )
    side = Side(torch.randn(2 * ROWS, CHANNELS, SIDE, SIDE))
    fakes = side if reference else None
    setup = Setup(PARAMS, criterion, side, side, 0, "step_memory", 0, fakes, fakes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of building all this, is over
    train_diffusion(setup, denoiser, list, lambda *_: None)
    peak = 1024 * (memory_of(os.getpid())["VmHWM"] - started)
    weights = sum(weight.numel() for weight in denoiser.parameters())
    trained = sum(weight.numel() for weight in trained_weights(denoiser))
    copies = int(reference is not None and rank is None)
    counted = step_bytes(weights, trained, copies)
    batches = 1 if reference is None else 2  # ddo: of reals and of fakes
    activations = batches * kept(
        denoiser.train(), torch.zeros(ROWS, CHANNELS, SIDE, SIDE), torch.zeros(ROWS)
    )
    given = objective, rank, checkpointing
    return StepMemory(*given, weights, trained, counted, activations, peak)


def table(found: list[StepMemory]) -> str:
    """A row for each case, in GiB."""
    heads = ["objective", "trained", "checkpointing", "counted", "activations", "sum", "measured"]
    lines = []
    for case in found:
        what = "everything" if case.rank is None else f"adapter of rank {case.rank}"
        cells = [case.objective, f"{what}, {case.trained / 1e6:.1f} M"]
        cells.append("yes" if case.checkpointing else "no")
        sizes = (case.counted, case.activations, case.counted + case.activations, case.peak)
        cells += [f"{size / 2**30:.2f}" for size in sizes]
        lines.append(cells)
    return markdown(heads, lines)


def read() -> list[StepMemory]:
    return [StepMemory(**case) for case in json.loads(FILE.read_text())]


def main() -> None:
    print_safely()
    if len(sys.argv) > 1:  # one case
        print(json.dumps(asdict(measure(*json.loads(sys.argv[1])))))
        return
    found = []
    for case in CASES:
        env = os.environ | RETURNED | {CHECKPOINTING: str(int(case[-1]))}
        command = [sys.executable, __file__, json.dumps(case)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        found.append(StepMemory(**json.loads(done.stdout)))
        print(table(found[-1:]).splitlines()[-1], flush=True)
    write_json(FILE, [asdict(one) for one in found])
    print(table(found))


if __name__ == "__main__":
    main()

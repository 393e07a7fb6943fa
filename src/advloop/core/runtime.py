"""Where and how a stage computes: device, precision, random streams.

The device is no parameter: the machine decides, and the environment may override
(``ADVLOOP_DEVICE``). It and the number of CPU threads (``OMP_NUM_THREADS``) are
part of what makes bytes: others round differently.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from advloop.core.errors import UserError


def device() -> torch.device:
    """``ADVLOOP_DEVICE`` if set, else the GPU if there is one, else the CPU.

    Of several processes on a machine each has a GPU of its own: the one of its LOCAL_RANK.
    """
    name = os.environ.get("ADVLOOP_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        name += f":{os.environ.get('LOCAL_RANK', '0')}"
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"ADVLOOP_DEVICE={name}: not usable ({reason}); unset it") from None
    return chosen


def generator(seed: int, *key: int | str) -> torch.Generator:
    """An independent CPU stream for (seed, *key).

    The key names the draw: stage, iteration, then epoch or sample index. Streams
    of different keys are unrelated, so no draw depends on the order of others.
    """
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    stream = torch.Generator("cpu")
    stream.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return stream


@contextmanager
def seeded(seed: int, *key: int | str) -> Iterator[None]:
    """Seed torch's global state for code that offers no generator (initialisation, dropout).

    The previous state returns at the end.
    """
    with torch.random.fork_rng():
        torch.manual_seed(generator(seed, *key).initial_seed())
        yield


def autocast(precision: str, where: torch.device) -> torch.autocast:
    """Autocast to bfloat16 for ``bf16``; a context without effect for ``fp32``."""
    return torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16")


def deterministic() -> None:
    """Ask for the kernels that give the same bytes at every run on this machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A debugging aid that costs time: no result here is read before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # untyped
    torch.backends.cudnn.benchmark = False


@contextmanager
def eval_mode(*modules: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, with every submodule's mode restored at the end."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training


def shuffled_rows(count: int, total: int, stream: torch.Generator) -> torch.Tensor:
    """Rows (count,) int64 in [0, total): one permutation after another.

    So none stands there twice where count <= total, and else each as often as any other,
    give or take one.
    """
    rounds = -(-count // total)
    return torch.cat([torch.randperm(total, generator=stream) for _ in range(rounds)])[:count]


def batches(total: int, size: int) -> list[range]:
    """Consecutive ranges of at most ``size`` that cover ``range(total)``."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]

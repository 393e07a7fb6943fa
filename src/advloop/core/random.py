"""Random streams, each with a key of its own, and the order in which rows are used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

LONG = 1 << 20  # numbers that are worth threads: one draws them in about 10 ms


def generator(seed: int, *key: int | str) -> torch.Generator:
    """An independent CPU stream for (seed, *key).

    The key names the draw: stage, iteration, then epoch or sample index. Streams with different
    keys are unrelated, so no draw depends on how many others came before it.
    """
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    stream = torch.Generator("cpu")
    stream.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return stream


@contextmanager
def seeded(seed: int, *key: int | str) -> Iterator[None]:
    """Seed torch's global stream, for code that takes no generator (initialisation, dropout).

    Afterwards the global stream goes on from where it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(generator(seed, *key).initial_seed())
        yield


def shuffled_rows(count: int, total: int, stream: torch.Generator) -> torch.Tensor:
    """Row numbers (count,) int64 in [0, total): one permutation after another.

    No row is repeated before every row has been used.
    """
    rounds = -(-count // total)
    return torch.cat([torch.randperm(total, generator=stream) for _ in range(rounds)])[:count]


def batches(total: int, size: int) -> list[range]:
    """Consecutive ranges of at most ``size`` rows that cover ``range(total)``."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def drawn_on(device: torch.device, stream: torch.Generator) -> torch.Generator:
    """The stream from which ``device`` draws large tensors: ``stream`` itself for a CPU.

    A GPU draws from a stream of its own, with the same seed. A host's core takes longer to draw the
    noise of a training step than the GPU takes for the step.
    """
    if device.type == "cpu":
        return stream
    return torch.Generator(device).manual_seed(stream.initial_seed())


def noise_for(indices: Iterable[int], shape: tuple[int, ...], *key: int | str) -> torch.Tensor:
    """Initial standard normal noise (B, *shape) of the samples ``indices``.

    Sample k's noise depends on (*key, k) alone, so it is the same in any batch, process, thread or
    order, and on any device. ``key`` starts with the seed, an int.
    """
    seed, *rest = key
    assert isinstance(seed, int)
    keys = list(indices)
    noise = torch.empty(len(keys), *shape)

    def fill(rows: range) -> None:
        for row in rows:
            torch.randn(shape, generator=generator(seed, *rest, keys[row]), out=noise[row])

    threads = min(torch.get_num_threads(), len(keys)) if noise.numel() >= LONG else 1
    if threads < 2:
        fill(range(len(keys)))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, (range(k, len(keys), threads) for k in range(threads))))
    return noise

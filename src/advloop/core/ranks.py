"""The processes that share a stage's work, and what they exchange (torch.distributed).

Every process holds the whole model and draws the same batches and the same noise; each computes
its share of the rows, so that N processes see what one would see. Without a process group there
is one process, and everything here costs nothing.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist

Compute = Callable[..., torch.Tensor]


def free_port() -> int:
    """A port of this machine on which nobody listens, for processes to meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def join() -> None:
    """Meet the others, where the environment says that there are any (RANK, WORLD_SIZE)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        gpu = ",cuda:nccl" if torch.cuda.is_available() else ""
        dist.init_process_group(f"cpu:gloo{gpu}")


def leave() -> None:
    """Part from the others, where all have come to their end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def agree(value: int) -> int:
    """The leader's ``value``, in every process."""
    if world_size() == 1:
        return value
    box = torch.tensor(value)
    dist.broadcast(box, src=0)
    return int(box)


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    """Rows of all processes in the order of their ranks; each gets the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor) -> torch.Tensor:
        ctx.count = len(mine)
        parts = [torch.empty_like(mine) for _ in range(world_size())]
        dist.all_gather(parts, mine)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient[rank() * ctx.count : (rank() + 1) * ctx.count]


def _gather(mine: torch.Tensor) -> torch.Tensor:
    gathered: torch.Tensor = _Gather.apply(mine.contiguous())  # type: ignore[no-untyped-call]  # torch's
    return gathered


def spread(compute: Compute, *batch: torch.Tensor) -> torch.Tensor:
    """``compute(*batch)`` (B, …), of which each process computes B / world_size rows.

    batch: tensors (B, …), alike in every process. What follows may mix the rows of the batch,
    as long as every process does the same: its gradients are complete, while those of the
    parameters behind ``compute`` are this process's share, for ``sum_gradients`` to complete.
    """
    if world_size() == 1:
        return compute(*batch)
    count = len(batch[0])
    share = -(-count // world_size())
    # all shares are equally long: the last row fills up the last ones, and is cut off again
    rows = torch.arange(rank() * share, (rank() + 1) * share).clamp(max=count - 1)
    return _gather(compute(*(tensor[rows.to(tensor.device)] for tensor in batch)))[:count]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one message."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, total in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(total.view_as(gradient))


def in_turns(
    jobs: Iterable[range], compute: Callable[[range], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """``compute(job)`` (len(job), …) of every job in their order, each computed by one process.

    Every process is given every result.
    """
    if world_size() == 1:
        yield from map(compute, jobs)
        return
    remaining = iter(jobs)
    while turn := list(itertools.islice(remaining, world_size())):
        mine = compute(turn[min(rank(), len(turn) - 1)])
        longest = max(map(len, turn))
        padded = mine.new_zeros(longest, *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = _gather(padded).split(longest)
        for job, part in zip(turn, parts, strict=False):
            yield part[: len(job)]

"""What the processes that share a stage exchange (torch.distributed).

Every process holds the whole model and draws the same batches and the same noise. Each computes
its share of the rows, and all get the result that one process would have computed. In a single
process everything here returns at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from advloop.core.processes import process_count

Compute = Callable[..., torch.Tensor]


def join() -> None:
    """Meet the other processes, if the environment says that there are any."""
    if process_count() > 1:
        gpu = ",cuda:nccl" if torch.cuda.is_available() else ""
        dist.init_process_group(f"cpu:gloo{gpu}")


def leave() -> None:
    """End the exchange, once every process has finished."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def broadcast_from_main(value: int) -> int:
    """The main process's ``value``, in every process."""
    if world_size() == 1:
        return value
    box = torch.tensor(value)
    dist.broadcast(box, src=0)
    return int(box)


def barrier() -> None:
    """Wait until every process has come this far."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    """The rows of all processes, by rank; backward keeps the gradient of this process's rows."""

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


def split_across_processes(compute: Compute, *batch: torch.Tensor) -> torch.Tensor:
    """``compute(*batch)`` (B, ...), with B / world_size of the rows computed by each process.

    batch: tensors (B, ...), the same in every process. Code that follows may mix the rows of the
    result, as long as every process runs it. The gradient of the result is then complete, but each
    process has only its share of the gradients of the parameters behind ``compute``:
    ``sum_gradients`` completes them.
    """
    if world_size() == 1:
        return compute(*batch)
    count = len(batch[0])
    share = -(-count // world_size())
    # all_gather wants equal shares: the last row is repeated to fill them, then cut off
    rows = torch.arange(rank() * share, (rank() + 1) * share).clamp(max=count - 1)
    return _gather(compute(*(tensor[rows.to(tensor.device)] for tensor in batch)))[:count]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes, with one message for all of them."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, total in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(total.view_as(gradient))


def map_across_processes(
    compute: Callable[[range], torch.Tensor], jobs: Iterable[range]
) -> Iterator[torch.Tensor]:
    """``map(compute, jobs)``, with each job computed by one process and its result in all.

    compute: returns a tensor (len(job), ...).
    """
    if world_size() == 1:
        yield from map(compute, jobs)
        return
    remaining = iter(jobs)
    while turn := list(itertools.islice(remaining, world_size())):
        # in the last turn there may be fewer jobs than processes: the rest repeat the last one
        mine = compute(turn[min(rank(), len(turn) - 1)])
        longest = max(map(len, turn))
        padded = mine.new_zeros(longest, *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = _gather(padded).split(longest)
        for job, part in zip(turn, parts, strict=False):
            yield part[: len(job)]

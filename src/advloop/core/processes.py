"""The processes that share a stage, as their launcher describes them in the environment.

torchrun, `accelerate launch` and ``stages/_runtime/processes.py`` set the same variables. They are
read here without torch: a light stage must not load it only to learn that it is the one that
writes. What the processes exchange is in ``distributed``.
"""

from __future__ import annotations

import os
import socket

LOOPBACK = "127.0.0.1"


def is_launched() -> bool:
    """Whether a launcher started this process, alone or as one of several."""
    return "RANK" in os.environ


def is_main_process() -> bool:
    """Whether this process writes and prints: the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """The number of this process on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def process_count() -> int:
    """How many processes share the stage, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch_variables(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment of process ``rank`` of ``count`` on this machine, as torchrun sets it."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """A port of this machine that nobody listens on, for the processes to meet at."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port

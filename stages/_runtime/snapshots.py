"""The snapshots of a stage that resumes after a crash: where they lie, and which are its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from advloop.core.device import device_name, pick_device
from advloop.core.distributed import broadcast_from_main, world_size
from advloop.core.errors import UserError
from advloop.core.processes import is_main_process
from advloop.infra.locks import try_lock, unlock
from advloop.infra.snapshots import NoResume, Resume, Snapshots, fingerprint, loaded_modules
from advloop.params.loader import Params

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def resumable(args: argparse.Namespace, params: Params, *outputs: str) -> Iterator[Resume]:
    """The snapshots of this very computation; they are removed if the block ends well.

    outputs: names of the arguments that the stage writes; every other path is an input.
    Enter it after reading all parameters of the stage, since only those that were read count.
    An experiment in a temporary copy keeps its snapshots in the user's repository, so that a later
    copy finds them. If the same computation already runs elsewhere, this one takes none.
    """
    given = vars(args)
    state = Path(os.environ.get("DVC_ROOT") or ".") / ".state"
    name = f"{Path(sys.argv[0]).stem}-{_computation(given, params, outputs)}"
    lock = state / "locks" / name
    if not broadcast_from_main(is_main_process() and try_lock(lock)):
        print("the same computation is running elsewhere; this one takes no snapshots", flush=True)
        yield NoResume()
        return
    try:
        snapshots = Snapshots(state / name, [given[k] for k in outputs], _snapshot_seconds())
        if snapshots.found:
            print("resuming where an earlier run was interrupted", flush=True)
        yield snapshots
        snapshots.clear()
    finally:
        if is_main_process():
            unlock(lock)


def _computation(given: dict[str, object], params: Params, outputs: tuple[str, ...]) -> str:
    """A fingerprint of all that the result follows from: inputs, settings, machine, code."""
    inputs = {k: v for k, v in given.items() if isinstance(v, Path) and k not in outputs}
    facts = {
        "arguments": {k: v for k, v in given.items() if k not in inputs and k not in outputs},
        "params": params.used,
        "machine": [
            torch.__version__,
            device_name(pick_device()),
            torch.get_num_threads(),  # other numbers round differently
            world_size(),
        ],
    }
    return fingerprint(facts, inputs | loaded_modules(ROOT, "src", "stages"))


def _snapshot_seconds() -> float:
    """``ADVLOOP_SNAPSHOT_SECONDS``: least time between two snapshots, 10 if unset."""
    text = os.environ.get("ADVLOOP_SNAPSHOT_SECONDS") or "10"
    try:
        seconds = float(text)
        if not seconds >= 0:
            raise ValueError
    except ValueError:
        raise UserError(
            f"ADVLOOP_SNAPSHOT_SECONDS={text}: must be a number of seconds, at least 0; unset it"
        ) from None
    return seconds

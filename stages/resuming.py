"""What the stages share that go on where a crash stopped them: whose snapshots, and where."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from advloop.core.errors import UserError
from advloop.core.fingerprint import fingerprint, loaded_modules
from advloop.core.leader import leads
from advloop.core.lock import try_lock, unlock
from advloop.core.ranks import agree, world_size
from advloop.core.resume import Never, Resume, Snapshots
from advloop.core.runtime import device
from advloop.params.loader import Params

ROOT = Path(__file__).resolve().parent.parent


def snapshot_seconds() -> float:
    """``ADVLOOP_SNAPSHOT_SECONDS``: how far apart snapshots lie at least, 10 if unset."""
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


@contextmanager
def resumable(args: argparse.Namespace, params: Params, *outputs: str) -> Iterator[Resume]:
    """The snapshots of this very computation, gone at the end without an exception.

    outputs: the names of the arguments that the stage writes; every other path is an input.
    To be entered once all of ``params`` that matter were read, since what was read counts. The
    folder lies in the user's repository, in that of a temporary copy's origin too: a later
    copy finds it. Where a twin computes the same elsewhere, this one takes no snapshots.
    """
    given = vars(args)
    inputs = {k: v for k, v in given.items() if isinstance(v, Path) and k not in outputs}
    where = device()
    facts = {
        "arguments": {k: v for k, v in given.items() if k not in inputs and k not in outputs},
        "params": params.used,
        "machine": [
            torch.__version__,
            torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
            torch.get_num_threads(),  # other counts round differently
            world_size(),
        ],
    }
    name = Path(sys.argv[0]).stem
    code = loaded_modules(ROOT, "src", "stages")
    name += f"-{fingerprint(facts, inputs | code)}"
    state = Path(os.environ.get("DVC_ROOT") or ".") / ".state"
    lock = state / "locks" / name
    if not agree(leads() and try_lock(lock)):
        print("the same computation runs elsewhere; this one takes no snapshots", flush=True)
        yield Never()
        return
    try:
        snapshots = Snapshots(state / name, [given[k] for k in outputs], snapshot_seconds())
        if snapshots.found:
            print("goes on where an earlier run of it was interrupted", flush=True)
        yield snapshots
        snapshots.clear()
    finally:
        if leads():
            unlock(lock)

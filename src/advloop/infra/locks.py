"""Locks between processes, which the kernel releases when their holder dies.

No result depends on a lock: it decides whether a stage runs or stops with an error, and never what
the stage computes.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from advloop.core.errors import UserError
from advloop.core.files import disk_errors

_held: dict[Path, int] = {}


def try_lock(path: Path) -> bool:
    """Lock the file ``path`` until this process ends; False if another process has it.

    The file says who holds the lock, for users who wait for it. UserError if it cannot be written.
    """
    path = path.resolve()
    if path in _held:
        return True
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} ({Path(sys.argv[0]).stem}, since {since})".encode())
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            os.close(handle)
            raise
    _held[path] = handle
    return True


def unlock(path: Path) -> None:
    """Release a lock of this process. The file stays: another process may be waiting on it."""
    os.close(_held.pop(path.resolve()))


def require_lock(path: Path, output: Path) -> None:
    """Lock ``path`` before writing ``output``; UserError names the process that has the lock."""
    if try_lock(path):
        return
    holder = path.read_text(errors="replace")
    pid = holder.partition(" ")[0]
    raise UserError(
        f"{output}: process {holder} is still writing it; wait until it has finished, or stop it "
        f"with `kill {pid}`"
    )

"""Stages whose work several processes share, when the environment asks for it.

``ADVLOOP_PROCESSES=N`` starts N on this machine. ``ADVLOOP_LAUNCHER`` is a command that starts
them, on several machines too: ``torchrun …``, ``accelerate launch …``, ``srun torchrun …``. Neither
is a parameter: their processes see the batches and the noise that one would see.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import run_stage
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from advloop.core.errors import UserError
from advloop.core.leader import leads
from advloop.core.ranks import free_port, join, leave

Main = Callable[[], None]
GRACE = 5.0  # seconds: what a failed process leaves the others to say why, or to be ended with it


def run_shared_stage(main: Main, memory: str) -> None:
    """``run_stage`` in this process, or in as many as the environment asks for."""
    if "RANK" in os.environ:
        _run_rank(main, memory)
    if launcher := os.environ.pop("ADVLOOP_LAUNCHER", None):
        run_stage(lambda: _launch(launcher))
    count = os.environ.get("ADVLOOP_PROCESSES") or "1"
    if count == "1":
        run_stage(main, memory)
    run_stage(lambda: _spawn(count, main, memory))


def _run_rank(main: Main, memory: str) -> None:
    """One of several processes, of which the leader speaks."""
    join()
    if not leads():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # to the end of the process

    def patient() -> None:
        try:
            main()
            leave()
        except KeyboardInterrupt:
            sys.exit(130)  # whoever started the processes says it once
        except Exception as error:
            # the same mistake meets all, and the end of one breaks the others' exchange
            if not (leads() and isinstance(error, UserError)):
                time.sleep(GRACE)
            raise

    run_stage(patient, memory)


def _rank(index: int, main: Main, memory: str) -> None:
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(index)
    _run_rank(main, memory)


def _spawn(text: str, main: Main, memory: str) -> None:
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"ADVLOOP_PROCESSES={text}: must be a whole number above 0; unset it")
    count = int(text)
    os.environ |= {"WORLD_SIZE": text, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    processes = start_processes(_rank, (main, memory), count, join=False, start_method="spawn")
    assert processes is not None
    try:
        while not processes.join():
            pass
    except ProcessExitedException as error:
        if error.signal_name is None:
            sys.exit(error.exit_code)  # it has said why
        raise UserError(
            f"process {error.error_index + 1} of {count} was ended by {error.signal_name}; "
            "`dvc repro` goes on where the stage stopped"
        ) from None
    except KeyboardInterrupt:
        for process in processes.processes:
            process.terminate()
            process.join()
        raise


def _launch(launcher: str) -> None:
    try:
        words = shlex.split(launcher)
        if not words:
            raise ValueError("is empty")
        status = subprocess.run([*words, *sys.argv]).returncode
    except (OSError, ValueError) as error:  # no such program; a quotation that does not end
        raise UserError(f"ADVLOOP_LAUNCHER={launcher}: {error}; correct or unset it") from None
    if status:
        raise UserError(
            f"ADVLOOP_LAUNCHER={launcher}: ended with status {status}; see above; `dvc repro` goes "
            "on where the stage stopped"
        )

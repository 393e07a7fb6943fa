"""Stages that several processes can share, if the environment asks for it.

``ADVLOOP_PROCESSES=N`` starts N processes on this machine. ``ADVLOOP_LAUNCHER`` is a command that
starts them, on several machines if need be: ``torchrun …``, ``accelerate launch …``,
``srun torchrun …``. Neither is a parameter, since the result is that of one process up to rounding.
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

from _runtime.errors import run_stage

from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from advloop.core.distributed import join, leave
from advloop.core.errors import UserError
from advloop.core.processes import free_port, is_launched, is_main_process, launch_variables

Main = Callable[[], None]
GRACE = 5.0  # seconds for the main process to report an error before the others fail of it


def run_shared_stage(main: Main, memory: str) -> None:
    """``run_stage`` in this process, or in as many processes as the environment asks for."""
    if is_launched():
        _run_one_of_several(main, memory)
    if launcher := os.environ.pop("ADVLOOP_LAUNCHER", None):
        run_stage(lambda: _launch(launcher))
    count = os.environ.get("ADVLOOP_PROCESSES") or "1"
    if count == "1":
        run_stage(main, memory)
    run_stage(lambda: _spawn(count, main, memory))


def _run_one_of_several(main: Main, memory: str) -> None:
    join()
    if not is_main_process():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # open until the process ends

    def patient() -> None:
        try:
            main()
            leave()
        except Exception as error:
            # All processes meet the same bad input, and one that ends breaks the others' exchange:
            # the main process reports it before the others fail.
            if not (is_main_process() and isinstance(error, UserError)):
                time.sleep(GRACE)
            raise

    def silent_if_interrupted() -> None:
        try:
            patient()
        except KeyboardInterrupt:  # while it waits, too
            sys.exit(130)  # the process that started this one reports it, once

    run_stage(silent_if_interrupted, memory)


def _spawned(rank: int, count: int, port: int, main: Main, memory: str) -> None:
    os.environ |= launch_variables(rank, count, port)
    _run_one_of_several(main, memory)


def _spawn(text: str, main: Main, memory: str) -> None:
    """Start ``text`` processes on this machine and wait for them."""
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"ADVLOOP_PROCESSES={text}: must be a whole number above 0; unset it")
    count = int(text)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    arguments = (count, free_port(), main, memory)
    processes = start_processes(_spawned, arguments, count, join=False, start_method="spawn")
    assert processes is not None
    try:
        while not processes.join():
            pass
    except ProcessExitedException as error:
        if error.signal_name is None:
            sys.exit(error.exit_code)  # it has printed the reason
        raise UserError(
            f"process {error.error_index + 1} of {count} was ended by {error.signal_name}; "
            "`dvc repro` resumes where the stage stopped"
        ) from None
    except KeyboardInterrupt:
        for process in processes.processes:
            process.terminate()
            process.join()
        raise


def _launch(launcher: str) -> None:
    """Run this script again through the command ``launcher``."""
    try:
        words = shlex.split(launcher)
        if not words:
            raise ValueError("is empty")
        status = subprocess.run([*words, *sys.argv]).returncode
    except (OSError, ValueError) as error:  # no such program; an unclosed quotation
        raise UserError(f"ADVLOOP_LAUNCHER={launcher}: {error}; correct or unset it") from None
    if status:
        raise UserError(
            f"ADVLOOP_LAUNCHER={launcher}: ended with status {status}; see above; `dvc repro` "
            "resumes where the stage stopped"
        )

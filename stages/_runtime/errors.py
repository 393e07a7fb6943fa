"""How a stage ends: with its cost recorded, or with one line that says what is wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from advloop.core.errors import UserError
from advloop.core.processes import is_main_process
from advloop.infra.output import print_safely
from advloop.infra.timings import record
from advloop.params.loader import Params


def run_stage(main: Callable[[], None], memory: str | None = None) -> NoReturn:
    """Run ``main`` and exit; a UserError becomes one line on stderr and status 1.

    memory: the parameter to lower if memory runs out. That too is one line then. SIGTERM and
    SIGINT end the stage without a traceback.
    """
    print_safely()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
        _record_cost()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error) or memory is None:
            raise
        value = Params.load().at(memory)
        print(
            f"error: out of memory with {memory}={value}; lower it with `dvc exp run -S "
            f"{memory}=…`, or stop other programs that use memory",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` resumes this stage", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _record_cost() -> None:
    """Record the stage's time and memory if DVC runs it; see ``advloop.infra.timings``."""
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # the name in dvc.lock
    if not (stage and is_main_process()):
        return
    try:
        record(stage)
    except (OSError, UserError) as error:  # the results are complete all the same
        print(f"warning: the stage's time is not recorded ({error})", file=sys.stderr)


def _out_of_memory(error: BaseException) -> bool:
    """On any device. torch's error is known by its name: a light stage does not load torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )

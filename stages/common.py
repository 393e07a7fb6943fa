"""What every stage shares: the library's path, its arguments, its parameters, its errors."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# An experiment that DVC runs in a temporary copy must import that copy's library.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from omegaconf import OmegaConf

from advloop.core.errors import UserError
from advloop.core.leader import leads
from advloop.core.lock import require_lock
from advloop.core.timings import record
from advloop.params.loader import Params


def parse_args(
    doc: str | None,
    optional: tuple[str, ...] = (),
    written: str = "out",
    **arguments: Callable[[str], Any],
) -> argparse.Namespace:
    """Options ``--name`` with their types, all required but the ``optional`` ones.

    From here to the end of the process nobody else may write the path in option ``written``: a
    stage whose DVC was killed may go on in the background, while the next `dvc repro` begins.
    """
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False)
    for name, kind in arguments.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, required=name not in optional)
    args = parser.parse_args()
    output = getattr(args, written)
    if leads():
        require_lock(Path(".state/locks") / output.as_posix().replace("/", "_"), output)
    return args


def load_params(stage: str, iteration: int | None = None) -> Params:
    """params.yaml, announced in the one line that says what this run is.

    The number of threads is part of what makes bytes, so the log records it.
    """
    params = Params.load()
    content = params.content
    name = stage if iteration is None else f"{stage}@{iteration}"
    torch = sys.modules.get("torch")  # a light stage does not load it, and has no threads
    print(
        f"[{name}] scale={content.get('scale')} "
        f"objective={OmegaConf.select(content, 'objective.name')} "
        f"num_iterations={content.get('num_iterations')}"
        + (f" threads={torch.get_num_threads()}" if torch else ""),
        flush=True,
    )
    return params


def out_of_memory(error: BaseException) -> bool:
    """Of any device. torch's own classes are not looked at, since a light stage has no torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def note_cost() -> None:
    """Where DVC runs the stage: how long it took, which no result depends on."""
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # as dvc.lock names it
    if not (stage and leads()):
        return
    try:
        record(stage)
    except (OSError, UserError) as error:  # the results are there, and whole
        print(f"warning: the stage's time is not recorded ({error})", file=sys.stderr)


def run_stage(main: Callable[[], None], memory: str | None = None) -> NoReturn:
    """Run ``main``; a UserError becomes one line on stderr and status 1.

    So does a lack of memory; ``memory`` is the parameter that sets how much is needed. SIGTERM
    and SIGINT end it without a traceback.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
        note_cost()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or memory is None:
            raise
        value = OmegaConf.select(Params.load().content, memory)
        print(
            f"error: out of memory with {memory}={value}; lower it with `dvc exp run -S "
            f"{memory}=…`, or end what else needs memory",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on with this stage", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)

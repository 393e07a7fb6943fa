"""A stage's options, and the parameters of its run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advloop.core.processes import is_main_process
from advloop.infra.locks import require_lock
from advloop.params.loader import Params


def parse_args(
    doc: str | None,
    optional: tuple[str, ...] = (),
    written: str = "out",
    **arguments: Callable[[str], Any],
) -> argparse.Namespace:
    """Options ``--name`` with their types; all but the ``optional`` ones are required.

    The path in option ``written`` is locked until the process ends: if DVC is killed, its stage
    may still be writing when the next `dvc repro` starts. UserError if another process has it.
    """
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False)
    for name, kind in arguments.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, required=name not in optional)
    args = parser.parse_args()
    output = getattr(args, written)
    if is_main_process():
        require_lock(Path(".state/locks") / output.as_posix().replace("/", "_"), output)
    return args


def load_params(stage: str, iteration: int | None = None) -> Params:
    """params.yaml, after printing one line that says what this run is.

    The line includes the number of threads, because results depend on it.
    """
    params = Params.load()
    name = stage if iteration is None else f"{stage}@{iteration}"
    torch = sys.modules.get("torch")  # a light stage has not loaded it
    print(
        f"[{name}] scale={params.at('scale')} "
        f"objective={params.at('objective.name')} "
        f"num_iterations={params.at('num_iterations')}"
        + (f" threads={torch.get_num_threads()}" if torch else ""),
        flush=True,
    )
    return params

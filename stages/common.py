"""What every stage shares: the library's path, its arguments, its parameters, its errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# An experiment that DVC runs in a temporary copy must import that copy's library.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from omegaconf import OmegaConf

from advloop.errors import UserError
from advloop.params.loader import Params


def parse_args(
    doc: str | None, optional: tuple[str, ...] = (), **arguments: Callable[[str], Any]
) -> argparse.Namespace:
    """Options ``--name`` with their types, all required but the ``optional`` ones."""
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False)
    for name, kind in arguments.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, required=name not in optional)
    return parser.parse_args()


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


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Run ``main``; a UserError becomes one line on stderr and status 1."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on from the last finished stage", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)

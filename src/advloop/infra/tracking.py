"""Show training live in TensorBoard, Weights & Biases or MLflow; off by default.

``ADVLOOP_TRACK`` names the tracker. No result depends on it: a tracker gets a copy of each row of
the history and returns nothing, and a tracker that fails is a warning. The CSV files are the
record.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

VARIABLE = "ADVLOOP_TRACK"
FOLDER = "runs"  # TensorBoard's, in the project even if an experiment runs in a copy of it
Values = Mapping[str, float]
Log = Callable[[Values, int], None]
"""Takes an epoch's values and its number."""


def _tensorboard(experiment: str, stage: str) -> Log:
    module = import_module("torch.utils.tensorboard")
    root = Path(os.environ.get("DVC_ROOT") or ".")
    writer = module.SummaryWriter(str(root / FOLDER / experiment / stage))
    atexit.register(writer.close)

    def log(values: Values, epoch: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return log


def _wandb(experiment: str, stage: str) -> Log:
    run = import_module("wandb").init(project="advloop", group=experiment, name=stage)
    atexit.register(run.finish)
    return lambda values, epoch: run.log(dict(values), step=epoch)


def _mlflow(experiment: str, stage: str) -> Log:
    module = import_module("mlflow")
    module.set_experiment("advloop")
    module.start_run(run_name=f"{experiment}/{stage}")
    atexit.register(module.end_run)
    return lambda values, epoch: module.log_metrics(dict(values), step=epoch)


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
_open: dict[str, Log | None] = {}  # by stage; None after a failure, which is reported once


def track(row: Values) -> None:
    """Send an epoch's row, which includes ``epoch``, to the tracker if there is one."""
    name = os.environ.get(VARIABLE)
    if not name:
        return
    stage = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    try:
        if stage not in _open:
            _open[stage] = _start(name, stage)
        if log := _open[stage]:
            log({key: value for key, value in row.items() if key != "epoch"}, int(row["epoch"]))
    except Exception as error:  # a tracker may fail in any way; training goes on
        _open[stage] = None
        reason = " ".join(str(error).split())
        print(f"warning: {VARIABLE}={name}: not tracked ({reason})", file=sys.stderr)


def _start(name: str, stage: str) -> Log:
    if name not in TRACKERS:
        raise ValueError(f"known: {', '.join(TRACKERS)}")
    return TRACKERS[name](os.environ.get("DVC_EXP_NAME") or "workspace", stage)

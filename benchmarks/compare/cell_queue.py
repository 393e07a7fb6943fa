"""DVC's queue: its tasks and workers, and waiting for the cells in it.

`dvc.api` has no part for the queue. It is read as `dvc queue status` reads it, and changed by `dvc`
commands, which also name the experiments.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import project
from advloop.core.errors import UserError
from advloop.core.files import write_json
from cells import PREFIX, Cell
from experiments import experiments, remember_event, remember_interrupted, remember_seconds
from project import ask_dvc, run
from workspace import queueing

POLL = 2.0  # seconds between two looks at the experiments and the queue
CHECK = 60.0  # seconds between two looks for a worker, each of which waits a second for answers
PATIENCE = 30.0  # seconds that an interrupted task has to end by itself
WORKERS = 5  # starts without a finished cell between them before giving up


@dataclass(frozen=True)
class Task:
    rev: str
    name: str
    status: str  # Running, Queued, Failed, Success


def our_tasks() -> list[Task]:
    """The tasks of the queue that are cells."""
    found = ask_dvc(lambda repo: repo.experiments.celery_queue.status())
    tasks = [Task(task["rev"], task["name"] or "", task["status"]) for task in found]
    return [task for task in tasks if task.name.startswith(PREFIX)]


def workers() -> int:
    """How many workers answer."""
    return len(ask_dvc(lambda repo: repo.experiments.celery_queue.worker_status()))


def without_worker() -> bool:
    """Whether none is alive; asked twice, because a busy worker may answer late."""
    return workers() == 0 and workers() == 0


def start_worker() -> None:
    remember_event(time.time())
    run("dvc", "queue", "start", "--jobs", "2")


def enqueue(cells: Sequence[Cell]) -> None:
    for cell in cells:
        options = [option for value in cell.arm.overrides(cell.seed) for option in ("-S", value)]
        with queueing():
            run("dvc", "exp", "run", "--queue", "--name", cell.name, *options)
        print(f"queued {cell.name}", flush=True)


def is_alive(pid: int, word: str) -> bool:
    """Whether this process runs a command with this word; another may have got its number."""
    return word in run("ps", "-o", "args=", "-p", str(pid), check=False).stdout


def end_task(task: Task) -> None:
    """End a task that DVC calls running, whether its processes are alive or not.

    `dvc queue kill` interrupts the group of the process that DVC noted; if that is gone, it marks
    the task as failed. DVC does not check whose number that is by now, so a dead process is marked
    first, in the file that DVC keeps about it.
    """
    remember_interrupted(task.name)
    folders = list((project.ROOT / ".dvc/tmp/exps/run").glob(f"{task.rev}*"))
    start = time.monotonic()
    while True:
        for folder in folders:
            path = folder / f"{folder.name}.json"
            info = json.loads(path.read_text()) if path.exists() else {}
            if info.get("returncode", 0) is None and not is_alive(info["pid"], folder.name):
                write_json(path, info | {"returncode": -1})
        force = ["--force"] if time.monotonic() - start > PATIENCE else []
        run("dvc", "queue", "kill", *force, task.rev, check=False)  # it may have ended by itself
        if not any(one.rev == task.rev and one.status == "Running" for one in our_tasks()):
            break
        if time.monotonic() - start > 3 * PATIENCE:
            raise UserError(f"`dvc queue kill {task.name}` does not end it")
        time.sleep(1)
    for path in (folder / f"{folder.name}.run" for folder in folders):
        # The copy of the repository, which a worker that is alive would remove.
        copy = Path(json.loads(path.read_text())["root_dir"]) if path.exists() else None
        if copy and copy.parent == project.ROOT / ".dvc/tmp/exps":
            shutil.rmtree(copy, ignore_errors=True)


def settle(wanted: Sequence[Cell]) -> dict[str, str]:
    """Keep only those of our tasks that run, or will run, for a wanted and unfinished cell.

    Returns their status by name. Tasks of an earlier call for other code or arms are removed, and
    so are those that failed or lost their worker: their cells are queued again.
    """
    for _ in range(3):
        tasks = our_tasks()
        done = experiments()  # after the queue: a cell may end while it is asked
        lost = any(task.status == "Running" for task in tasks) and without_worker()
        names = {cell.name for cell in wanted if cell.name not in done}
        kept: dict[str, str] = {}
        unwanted = []
        for task in tasks:
            if task.name in done and task.status in ("Success", "Running"):
                continue  # running: its worker is cleaning up
            waiting = task.status in ("Running", "Queued") and task.name in names - kept.keys()
            if waiting and not (task.status == "Running" and lost):
                kept[task.name] = task.status
            else:
                unwanted.append(task)
        if not unwanted:
            return kept
        for task in unwanted:
            if task.status == "Running":
                end_task(task)
            elif task.status == "Failed":
                remember_interrupted(task.name)
        run("dvc", "queue", "remove", *(task.rev for task in unwanted), check=False)
    raise UserError(f"`dvc queue remove {' '.join(task.rev for task in unwanted)}` removes nothing")


def announce(cells: Sequence[Cell], announced: set[str]) -> bool:
    """Print the cells that have finished since the last call; whether there were any."""
    done = experiments()
    new = [cell.name for cell in cells if cell.name in done and cell.name not in announced]
    for name in new:
        announced.add(name)
        finished = sum(cell.name in announced for cell in cells)
        seconds = remember_seconds(name)
        took = "" if seconds is None else f" in {seconds:.0f} s"
        print(f"{name}: done{took} ({finished} of {len(cells)})", flush=True)
    return bool(new)


def give_up(name: str, reason: str) -> None:
    """Leave a cell to the next call."""
    remember_interrupted(name)
    print(f"error: {name} {reason}", file=sys.stderr)


def wait(cells: Sequence[Cell]) -> list[str]:
    """Until each cell has finished or failed; returns the names of those that failed."""
    announced, failed, absent = set(experiments()), set[str](), set[str]()
    starts, next_check = 0, time.monotonic() + CHECK
    while True:
        if announce(cells, announced):
            starts = 0
        pending = {cell.name for cell in cells} - announced - failed
        if not pending:
            return sorted(failed)
        tasks = [task for task in our_tasks() if task.name in pending]
        for name in sorted({task.name for task in tasks if task.status == "Failed"}):
            remember_event(time.time())
            give_up(name, f"failed; `dvc queue logs {name}` shows its log")
            failed.add(name)
        waiting = [task for task in tasks if task.status in ("Running", "Queued")]
        # Removed, or successful without an experiment. Twice: a task that begins may be missed.
        was_absent, absent = absent, pending - failed - {task.name for task in waiting}
        for name in sorted(was_absent & absent - experiments().keys()):
            give_up(name, f"is no longer in the queue; `dvc queue logs {name}` may show its log")
            failed.add(name)
        if waiting and time.monotonic() >= next_check:
            if without_worker():
                starts = replace_worker(waiting, starts)
            next_check = time.monotonic() + CHECK
        time.sleep(POLL)


def replace_worker(waiting: Sequence[Task], starts: int) -> int:
    """End the tasks that lost their worker, and start one for the others; returns all starts."""
    lost = [task for task in waiting if task.status == "Running"]
    for task in lost:
        end_task(task)
    if starts == WORKERS:
        raise UserError(
            f"{WORKERS} queue workers ended without finishing a cell; "
            "see .dvc/tmp/exps/celery/dvc-exp-worker-1.out"
        )
    if len(waiting) == len(lost):
        return starts
    start_worker()
    return starts + 1


def stop() -> None:
    """Interrupt our running task with its worker; queued ones stay for the next call."""
    tasks = our_tasks()
    done = experiments()
    running = [task for task in tasks if task.status == "Running" and task.name not in done]
    for task in running:
        end_task(task)
    if not running and workers():
        run("dvc", "queue", "stop", check=False)

"""DVC's queue: its tasks and workers, and waiting for the cells in it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import compare_paths

from advloop.core.errors import UserError
from advloop.core.io import write_json
from compare_cells import PREFIX, Cell
from compare_git import experiments, git, run
from compare_state import remember_event, remember_interrupted, remember_seconds
from compare_workspace import queueing

# Seconds between looks at git's refs, and at the queue (a second or two of CPU). Where a task
# failed the next HURRY looks come soon: DVC notes it, cleans up, and only then calls it failed.
POLL, SOON, ASK, HURRY = 1.0, 5.0, 60.0, 20
PATIENCE = 30.0  # seconds that an interrupted task has to end by itself
WORKERS = 5  # starts without a finished cell between them before giving up


@dataclass(frozen=True)
class Task:
    """A line of `dvc queue status`."""

    rev: str
    name: str
    status: str  # Running, Queued, Failed, Success


def queue_status() -> tuple[list[Task], int]:
    """The queue's tasks, and how many workers answer."""
    for attempt in range(5):
        done = run("dvc", "queue", "status", check=attempt == 4)
        workers = re.search(r"Worker status: (\d+) active, (\d+) idle", done.stdout)
        if done.returncode == 0 and workers:
            lines = re.findall(
                r"^([0-9a-f]{7})\s+(\S+)\s.*\s(Running|Queued|Failed|Success)\s*$",
                done.stdout,
                re.MULTILINE,
            )
            return [Task(*line) for line in lines], int(workers[1]) + int(workers[2])
        time.sleep(2)  # a task that ended between two looks makes DVC fail
    raise UserError("`dvc queue status`: no line `Worker status` in its output")


def failures() -> str:
    """Changes when a task fails; cheap to look at."""
    return git("for-each-ref", "refs/exps/celery/failed")


def ours(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.name.startswith(PREFIX)]


def is_alive(pid: int, word: str) -> bool:
    """Whether the process still is the one with this word in its command; numbers come again."""
    return word in run("ps", "-o", "args=", "-p", str(pid), check=False).stdout


def end_task(task: Task) -> None:
    """End a task that DVC calls running, whether its processes live or not.

    `dvc queue kill` interrupts the group of the process that DVC wrote down; where that is gone
    it marks the task as failed. DVC does not look whose the process number is by now, so a dead
    process is marked as such first, in the file that DVC keeps of it.
    """
    remember_interrupted(task.name)
    folders = list((compare_paths.ROOT / ".dvc/tmp/exps/run").glob(f"{task.rev}*"))
    start = time.monotonic()
    while True:
        for folder in folders:
            path = folder / f"{folder.name}.json"
            info = json.loads(path.read_text()) if path.exists() else {}
            if info.get("returncode", 0) is None and not is_alive(info["pid"], folder.name):
                write_json(path, info | {"returncode": -1})
        force = ["--force"] if time.monotonic() - start > PATIENCE else []
        run("dvc", "queue", "kill", *force, task.rev, check=False)  # it may have ended by itself
        tasks, _ = queue_status()
        if not any(other.rev == task.rev and other.status == "Running" for other in tasks):
            break
        if time.monotonic() - start > 3 * PATIENCE:
            raise UserError(f"`dvc queue kill {task.name}` does not end it")
        time.sleep(1)
    for path in (folder / f"{folder.name}.run" for folder in folders):
        # The copy of the repository that a worker removes if it lives.
        copy = Path(json.loads(path.read_text())["root_dir"]) if path.exists() else None
        if copy and copy.parent == compare_paths.ROOT / ".dvc/tmp/exps":
            shutil.rmtree(copy, ignore_errors=True)


def without_worker(workers: int) -> bool:
    """Whether really none lives: one under load may answer late."""
    return workers == 0 and queue_status()[1] == 0


def settle(wanted: Sequence[Cell]) -> dict[str, str]:
    """Leave of our tasks only those that will run or run for a wanted, unfinished cell.

    Returns their status by name. What an earlier call queued for other code or arms goes, and so
    does what failed or lost its worker: its cell is queued again.
    """
    for _ in range(3):
        tasks, workers = queue_status()
        done = experiments()  # after the queue: a cell may end while it is asked
        names = {cell.name for cell in wanted if cell.name not in done}
        kept: dict[str, str] = {}
        unwanted = []
        for task in ours(tasks):
            if task.name in done and task.status in ("Success", "Running"):
                continue  # running: its worker is cleaning up
            waiting = task.status in ("Running", "Queued") and task.name in names - kept.keys()
            if waiting and not (task.status == "Running" and without_worker(workers)):
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


def enqueue(cells: Sequence[Cell]) -> None:
    for cell in cells:
        options = [option for value in cell.arm.overrides(cell.seed) for option in ("-S", value)]
        with queueing():
            run("dvc", "exp", "run", "--queue", "--name", cell.name, *options)
        print(f"queued {cell.name}", flush=True)


def start_worker() -> None:
    remember_event(time.time())
    run("dvc", "queue", "start", "--jobs", "1")


def announce(cells: Sequence[Cell], shown: set[str]) -> bool:
    """Print the finished cells that are not yet shown; returns whether there were any."""
    done = experiments()
    new = [cell.name for cell in cells if cell.name in done and cell.name not in shown]
    for name in new:
        shown.add(name)
        finished = sum(cell.name in shown for cell in cells)
        seconds = remember_seconds(name)
        took = "" if seconds is None else f" in {seconds:.0f} s"
        print(f"{name}: done{took} ({finished} of {len(cells)})", flush=True)
    return bool(new)


def give_up(name: str, reason: str) -> None:
    """Until the next call, whose time will hold only the stages that did not finish."""
    remember_interrupted(name)
    print(f"error: {name} {reason}", file=sys.stderr)


def wait(cells: Sequence[Cell]) -> list[str]:
    """Until each cell is finished or has failed; returns the names of those that failed."""
    shown, failed = set(experiments()), set[str]()
    starts, hurry, seen = 0, 0, failures()
    next_look = time.monotonic() + ASK
    while True:
        if announce(cells, shown):
            starts = 0
        pending = {cell.name for cell in cells} - shown - failed
        if not pending:
            return sorted(failed)
        if failures() != seen:
            seen, hurry = failures(), HURRY
            next_look = time.monotonic() + SOON
        if time.monotonic() < next_look:
            time.sleep(POLL)
            continue
        tasks, workers = queue_status()
        hurry = max(0, hurry - 1)
        mine = [task for task in ours(tasks) if task.name in pending]
        for name in sorted({task.name for task in mine if task.status == "Failed"}):
            remember_event(time.time())
            give_up(name, f"failed; `dvc queue logs {name}` shows its log")
            failed.add(name)
            hurry = 0
        waiting = [task for task in mine if task.status in ("Running", "Queued")]
        again = SOON if hurry else ASK
        if not waiting:
            # Gone from the queue, or successful without an experiment.
            for name in sorted(pending - failed - experiments().keys()):
                give_up(
                    name,
                    f"is not in the queue any more; `dvc queue logs {name}` may show its log",
                )
                failed.add(name)
        elif without_worker(workers):
            lost = [task for task in waiting if task.status == "Running"]
            for task in lost:  # its worker was killed: failed at the next look
                end_task(task)
            if starts == WORKERS:
                raise UserError(
                    f"{WORKERS} queue workers ended without finishing a cell; "
                    "see .dvc/tmp/exps/celery/dvc-exp-worker-1.out"
                )
            if len(waiting) > len(lost):
                starts += 1
                start_worker()
            else:
                again = SOON
        next_look = time.monotonic() + again


def stop() -> None:
    """Interrupt our running task with its worker; what is queued stays for the next call."""
    tasks, workers = queue_status()
    done = experiments()
    running = [task for task in ours(tasks) if task.status == "Running" and task.name not in done]
    for task in running:
        end_task(task)
    if workers and not running:
        run("dvc", "queue", "stop", check=False)

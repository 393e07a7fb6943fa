"""Every objective against `none` over training seeds: `make compare` writes docs/results.md.

Each cell, an arm (an objective, or the control of equal compute) and a training seed, is one
experiment in DVC's queue, named `compare-ARM-SEED-DIGEST`. The digest is of all that the cell's
figures follow from, so that a name among the experiments of this repository means a finished
cell, and commits that change nothing of that leave it finished. Interrupted or failed, it goes on
where it stopped: finished cells stay, and finished stages of others come from DVC's run-cache.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from advloop.comparison import (
    CONTROL,
    EQUAL_COMPUTE,
    Comparison,
    equal_compute_epochs,
    kept_rows,
    order_of_cells,
)
from advloop.comparison_page import page
from advloop.errors import UserError
from advloop.io import atomic_path, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "compare-"
RESULTS, PAGE, TRIED = "docs/results.json", "docs/results.md", "docs/tried.md"
PICTURES = "docs/results"
COLOURS = 32  # of a picture: a quarter of its size, and plans have few
# Of this clone, as the experiments are: start times, interrupted cells, a queueing under way.
STATE = ".dvc/tmp/compare.json"
LOCK = ".dvc/tmp/compare.lock"
# Seconds between looks at git's refs, and at the queue (a second or two of CPU). Where a task
# failed the next HURRY looks come soon: DVC notes it, cleans up, and only then calls it failed.
POLL, SOON, ASK, HURRY = 1.0, 5.0, 60.0, 20
PATIENCE = 30.0  # seconds that an interrupted task has to end by itself
WORKERS = 5  # starts without a finished cell between them before giving up


@dataclass(frozen=True)
class Arm:
    name: str
    objective: str
    epochs: int | None  # None: the objective's own
    evaluations: float  # of the network, a step

    def overrides(self, seed: int) -> list[str]:
        changed = [] if self.epochs is None else [f"train_diffusion.epochs={self.epochs}"]
        return [f"objective={self.objective}", f"seed={seed}", *changed]


@dataclass(frozen=True)
class Cell:
    arm: Arm
    seed: int
    name: str


@dataclass(frozen=True)
class Task:
    """A line of `dvc queue status`."""

    rev: str
    name: str
    status: str  # Running, Queued, Failed, Success


# --- git and dvc ---


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise UserError(f"`{' '.join(command)}`: {reason}")
    return done


def git(*args: str) -> str:
    return run("git", *args).stdout


def experiments() -> dict[str, tuple[str, int]]:
    """Commit and its Unix time of every experiment, by name; of equal names the newest."""
    listed = git(
        "for-each-ref",
        "--sort=committerdate",
        "--format=%(refname) %(objectname) %(committerdate:unix)",
        "refs/exps",
    )
    found = {}
    for line in listed.splitlines():
        ref, commit, seconds = line.split()
        # refs/exps/01/234abcd…/NAME; the others are the queue's own
        if match := re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)", ref):
            found[match[1]] = commit, int(seconds)
    return found


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


# --- What is remembered between runs ---


def read_state() -> dict[str, Any]:
    empty: dict[str, Any] = {"events": [], "seconds": {}, "interrupted": []}
    path = ROOT / STATE
    return empty | (read_json(path) if path.exists() else {})


def remember(**changes: Any) -> None:
    write_json(ROOT / STATE, read_state() | changes)


def remember_event(seconds: float) -> None:
    """When a worker was free to begin the next cell."""
    remember(events=sorted({*read_state()["events"], round(seconds)})[-100:])


def remember_seconds(name: str) -> float | None:
    """Wall time of a finished cell: from what came last before it to its commit.

    One cell runs at a time, so that another experiment's end is this one's start; this holds
    as well for cells that ended while nobody watched.
    """
    state = read_state()
    if name not in state["seconds"] and name not in state["interrupted"]:
        done = experiments()
        end = done[name][1]
        before = [seconds for other, (_, seconds) in done.items() if other != name]
        starts = [seconds for seconds in [*before, *state["events"]] if seconds <= end]
        if not state["events"] or min(state["events"]) > end:
            return None  # made before this file was
        state["seconds"][name] = end - max(starts)
        remember(seconds=state["seconds"])
    found = state["seconds"].get(name)
    return None if found is None else float(found)


def remember_interrupted(name: str) -> None:
    remember(interrupted=sorted({*read_state()["interrupted"], name}))


@contextmanager
def one_at_a_time() -> Iterator[None]:
    path = ROOT / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError("another `make compare` runs in this folder") from None
        yield


# --- Which cells ---


def compose(arm: Arm, seed: int) -> DictConfig:
    """The parameters that DVC will compose for a cell."""
    from hydra import compose, initialize_config_dir

    import hydra_plugins.advloop_derived  # noqa: F401  (registers the resolver)

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("config", arm.overrides(seed))


def code_and_data(params: DictConfig) -> str:
    """Git's names of the contents that a run's figures follow from: what dvc.yaml names."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    deps = {dep for stage in stages for dep in stage.get("do", stage)["deps"]}
    paths = {"dvc.yaml", *(dep for dep in deps if dep.startswith(("src/", "stages/")))}
    for key in ("data.source", "autoencoder.pretrained", "base.pretrained"):
        path = OmegaConf.select(params, key)
        if path is not None and not Path(path).is_absolute():
            paths |= {path, f"{path}.dvc"}
    return git("ls-tree", "-r", "HEAD", "--", *sorted(paths))


def cell(arm: Arm, seed: int) -> Cell:
    params = compose(arm, seed)
    values = OmegaConf.to_container(params, resolve=True)
    assert isinstance(values, dict)
    values.pop("derived")  # follows from the others, and holds a digest of every objective's file
    matters = json.dumps(values, sort_keys=True) + code_and_data(params)
    digest = hashlib.sha256(matters.encode()).hexdigest()[:8]
    return Cell(arm, seed, f"{PREFIX}{arm.name}-{seed}-{digest}")


def objectives_of(asked: str | None) -> list[str]:
    """Those of git's conf/objective/, or the asked ones of them."""
    found = [Path(path).stem for path in git("ls-files", "conf/objective/*.yaml").splitlines()]
    chosen = sorted(found) if asked is None else list(dict.fromkeys(asked.split(",")))
    for name in chosen:
        if name not in found:
            raise UserError(f"--objectives: no {name} in conf/objective/ ({', '.join(found)})")
    if CONTROL not in chosen:
        raise UserError(f"--objectives: needs {CONTROL}, which the others are compared with")
    return chosen


def seeds_of(asked: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", asked):
        raise UserError(f"--seeds {asked}: must be whole numbers with commas between them")
    return sorted({int(seed) for seed in asked.split(",")})


def arms_of(objectives: Sequence[str]) -> list[Arm]:
    from advloop.objectives.registry import OBJECTIVES

    for name in objectives:
        if name not in OBJECTIVES:
            raise UserError(f"{name}: not in OBJECTIVES of src/advloop/objectives/registry.py")
    costs = {name: float(OBJECTIVES[name].evaluations) for name in objectives}
    arms = [Arm(name, name, None, cost) for name, cost in costs.items()]
    if max(costs.values()) > costs[CONTROL]:
        epochs = compose(arms[objectives.index(CONTROL)], 0).train_diffusion.epochs
        more = equal_compute_epochs(epochs, costs)
        arms.append(Arm(EQUAL_COMPUTE, CONTROL, more, costs[CONTROL]))
    return arms


# --- The workspace ---


def restore_workspace() -> None:
    """Undo what `dvc exp run --queue` leaves if it is killed: it detaches HEAD and sets params."""
    before = read_state().get("queueing")
    if not before:
        return
    branch, commit = before["branch"], git("rev-parse", "HEAD")
    detached = run("git", "symbolic-ref", "--quiet", "HEAD", check=False).returncode != 0
    if detached and branch and git("rev-parse", branch) == commit:
        git("symbolic-ref", "HEAD", branch)
    git("reset", "--quiet")
    git("checkout", "--", "params.yaml", "dvc.lock")
    if stash() != before["stash"]:
        git("stash", "pop", "--quiet")  # changes of docs/ that DVC had put aside
    remember(queueing=None)


def stash() -> str:
    return run("git", "rev-parse", "--quiet", "--verify", "refs/stash", check=False).stdout.strip()


def check_clean() -> None:
    changed = git("diff", "HEAD", "--name-only", "--", ".", ":!docs").split()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"uncommitted changes in {', '.join(changed[:3])}{more}: DVC would carry them into the "
            "experiments; commit them, or `git stash`, and `make compare` again"
        )


# --- The queue ---


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
    folders = list((ROOT / ".dvc/tmp/exps/run").glob(f"{task.rev}*"))
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
        if copy and copy.parent == ROOT / ".dvc/tmp/exps":
            shutil.rmtree(copy, ignore_errors=True)


def without_worker(workers: int) -> bool:
    """Whether really none lives: one under load may answer late."""
    return workers == 0 and queue_status()[1] == 0


def settle(wanted: Sequence[Cell]) -> dict[str, str]:
    """Leave of our tasks only those that will run or run for a wanted, unfinished cell.

    Returns their status by name. What an earlier call queued for other code or arms goes, and so
    does what failed or lost its worker: its cell is queued again.
    """
    done = experiments()
    names = {cell.name for cell in wanted if cell.name not in done}
    for _ in range(3):
        tasks, workers = queue_status()
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
    branch = run("git", "symbolic-ref", "--quiet", "HEAD", check=False).stdout.strip()
    for cell in cells:
        remember(queueing={"branch": branch, "stash": stash()})
        options = [option for value in cell.arm.overrides(cell.seed) for option in ("-S", value)]
        run("dvc", "exp", "run", "--queue", "--name", cell.name, *options)
        remember(queueing=None)
        print(f"queued {cell.name}", flush=True)


def start_worker() -> None:
    remember_event(time.time())
    run("dvc", "queue", "start", "--jobs", "1")


def wait(cells: Sequence[Cell]) -> list[str]:
    """Until each cell is finished or has failed; returns the names of those that failed."""
    total, shown, failed = len(cells), set(experiments()), set[str]()
    starts, hurry, seen = 0, 0, failures()
    asked, again = time.monotonic(), ASK
    while True:
        done = experiments()
        pending = [cell.name for cell in cells if cell.name not in done]
        for cell in cells:
            if cell.name in done and cell.name not in shown:
                seconds = remember_seconds(cell.name)
                took = "" if seconds is None else f" in {seconds:.0f} s"
                print(f"{cell.name}: done{took} ({total - len(pending)} of {total})", flush=True)
                shown.add(cell.name)
                starts = 0
        if not set(pending) - failed:
            return sorted(failed)
        if failures() != seen:
            seen, hurry = failures(), HURRY
            asked, again = time.monotonic(), SOON
        if time.monotonic() - asked < again:
            time.sleep(POLL)
            continue
        tasks, workers = queue_status()
        hurry = max(0, hurry - 1)
        asked, again = time.monotonic(), SOON if hurry else ASK
        mine = {task.name: task for task in ours(tasks) if task.name in pending}
        for name in sorted({n for n, task in mine.items() if task.status == "Failed"} - failed):
            remember_event(time.time())
            print(f"error: {name} failed; `dvc queue logs {name}` shows its log", file=sys.stderr)
            failed.add(name)
            hurry, again = 0, ASK
        waiting = [task for task in mine.values() if task.status in ("Running", "Queued")]
        if waiting and without_worker(workers):
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
        elif not waiting and not set(pending) - failed <= set(experiments()):
            # Gone from the queue, or successful without an experiment.
            for name in sorted(set(pending) - failed - set(experiments())):
                print(
                    f"error: {name} is not in the queue any more; "
                    f"`dvc queue logs {name}` may show its log",
                    file=sys.stderr,
                )
                failed.add(name)


def stop() -> None:
    """Interrupt our running task with its worker; what is queued stays for the next call."""
    tasks, workers = queue_status()
    done = experiments()
    running = [task for task in ours(tasks) if task.status == "Running" and task.name not in done]
    for task in running:
        end_task(task)
    if workers and not running:
        run("dvc", "queue", "stop", check=False)


# --- Results ---


def steps_of(params: DictConfig) -> int | None:
    """Optimiser steps of one iteration; None where an epoch is all training latents."""
    training = params.train_diffusion
    if training.samples_per_epoch is None:
        return None
    return int(training.epochs * -(-training.samples_per_epoch // training.batch_size))


def collect(cells: Sequence[Cell], command: str) -> dict[str, Any]:
    done = experiments()
    arms, found = {}, dict[str, Any]()
    for cell in cells:
        params = compose(cell.arm, cell.seed)
        arms[cell.arm.name] = {
            "objective": cell.arm.objective,
            "epochs": params.train_diffusion.epochs,
            "steps": steps_of(params),
            "evaluations": cell.arm.evaluations,
        }
        if cell.name in done:
            metrics = json.loads(git("show", f"{done[cell.name][0]}:reports/metrics.json"))
            found.setdefault(cell.arm.name, {})[str(cell.seed)] = {
                "experiment": cell.name,
                "seconds": remember_seconds(cell.name),
                "rows": kept_rows(metrics),
            }
    return {
        "command": command,
        "commit": git("rev-parse", "--short=10", "HEAD").strip(),
        "scale": str(params.scale),
        "seeds": sorted({cell.seed for cell in cells}),
        "arms": arms,
        "cells": found,
    }


def save_pictures(cells: Sequence[Cell]) -> None:
    """Of each arm's first seed, in few colours; those of other arms go."""
    done = experiments()
    first = min(cell.seed for cell in cells)
    shutil.rmtree(ROOT / PICTURES, ignore_errors=True)
    for cell in cells:
        if cell.seed == first and cell.name in done:
            shown = subprocess.run(
                ["git", "show", f"{done[cell.name][0]}:reports/samples.png"],
                cwd=ROOT,
                check=True,
                capture_output=True,
            ).stdout
            picture = Image.open(io.BytesIO(shown)).convert("RGB")
            small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
            with atomic_path(ROOT / PICTURES / f"{cell.arm.name}.png") as temporary:
                small.save(temporary, format="png", optimize=True)


def rendered(root: Path = ROOT) -> str:
    """docs/results.md as it follows from docs/results.json, docs/tried.md and the pictures."""
    results = read_json(root / RESULTS)
    if not Comparison(results).iterations:
        raise UserError(f"{RESULTS}: holds no finished cell")
    pictures = {
        path.stem: path.relative_to(root / "docs").as_posix()
        for path in sorted((root / PICTURES).glob("*.png"))
    }
    return page(results, (root / TRIED).read_text(), pictures)


def write_page() -> None:
    text = rendered()
    with atomic_path(ROOT / PAGE) as temporary:
        temporary.write_text(text)
    print(f"wrote {PAGE}", flush=True)


# --- The command ---


def command_of(args: argparse.Namespace) -> str:
    if args.objectives is None and args.seeds == "0,1,2":
        return "make compare"
    objectives = "" if args.objectives is None else f" --objectives {args.objectives}"
    return f"python benchmarks/compare.py{objectives} --seeds {args.seeds}"


def compare(args: argparse.Namespace) -> int:
    restore_workspace()
    check_clean()
    seeds = seeds_of(args.seeds)
    arms = arms_of(objectives_of(args.objectives))
    if len(arms) == len({arm.objective for arm in arms}):
        print(f"no {EQUAL_COMPUTE}: no objective evaluates the network more often than {CONTROL}")
    by_name = {arm.name: arm for arm in arms}
    order = order_of_cells(list(by_name), seeds)
    cells = [cell(by_name[name], seed) for name, seed in order]
    done = experiments()
    finished = sum(cell.name in done for cell in cells)
    print(f"{len(cells)} cells, {finished} finished", flush=True)
    failed: list[str] = []
    if finished < len(cells):
        waiting = settle(cells)
        enqueue([cell for cell in cells if cell.name not in waiting and cell.name not in done])
        if "Running" not in waiting.values():
            start_worker()
        failed = wait(cells)
    results = collect(cells, command_of(args))
    if results["cells"]:
        write_json(ROOT / RESULTS, results)
        save_pictures(cells)
        write_page()
    if failed:
        print(
            f"error: {len(failed)} of {len(cells)} cells failed ({', '.join(failed)}); "
            "`make compare` tries them again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--objectives", help="names with commas between them (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="training seeds (default: %(default)s)")
    parser.add_argument(
        "--report-only",
        action="store_true",
        help=f"write {PAGE} from {RESULTS} and {TRIED}, and run nothing",
    )
    args = parser.parse_args()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell's background job ignores it, and so would DVC's worker, which
    # `dvc queue kill` interrupts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    try:
        if args.report_only:
            write_page()
            return 0
        with one_at_a_time():
            try:
                return compare(args)
            except KeyboardInterrupt:
                print("interrupted; stopping the queue", file=sys.stderr, flush=True)
                stop()
                print("`make compare` goes on where it stopped", file=sys.stderr)
                return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""Waiting for cells and settling the queue, with a queue that gives prepared answers."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import cell_queue
from advloop.core.errors import UserError
from cell_queue import Task, settle, wait
from cells import Arm, Cell
from experiments import Experiment
from project import ask_dvc, read_state

ARM = Arm("none", "none", None, 3)
A, B, OTHER = (Cell(ARM, seed, f"compare-none-{seed}-00000000") for seed in (0, 1, 2))


def task(cell: Cell, status: str) -> Task:
    return Task(f"{cell.seed:07d}", cell.name, status)


@dataclass
class Queue:
    """Answers each look with the next of ``looks``: tasks, and the cells finished by then."""

    looks: list[tuple[list[Task], list[Cell]]] = field(default_factory=list)
    workers: list[int] = field(default_factory=lambda: [1])
    done: dict[str, Experiment] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def tasks(self) -> list[Task]:
        tasks, finished = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        self.done |= {cell.name: Experiment("0" * 40, 0) for cell in finished}
        return tasks

    def alive(self) -> int:
        return self.workers.pop(0) if len(self.workers) > 1 else self.workers[0]

    def run(self, *command: str, **_: bool) -> None:
        self.calls.append(" ".join(command[:3]))


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr("project.ROOT", tmp_path)
    for name, value in {
        "our_tasks": queue.tasks,
        "workers": queue.alive,
        "experiments": lambda: dict(queue.done),
        "remember_seconds": lambda _: None,
        "run": queue.run,
        "end_task": lambda task: queue.calls.append(f"end {task.name}"),
        "POLL": 0.0,
        "CHECK": 0.0,
    }.items():
        monkeypatch.setattr(cell_queue, name, value)
    return queue


def test_waiting_ends_when_all_are_finished(queue, capsys):
    queue.looks = [
        ([task(A, "Running"), task(B, "Queued")], []),
        ([task(A, "Success"), task(B, "Running")], [A]),
        ([task(B, "Success")], [B]),
    ]
    assert wait([A, B]) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{A.name}: done (1 of 2)", f"{B.name}: done (2 of 2)"]
    assert queue.calls == []


def test_failed_cell_does_not_stop_the_others_and_its_next_time_does_not_count(queue):
    queue.looks = [
        ([task(A, "Failed"), task(B, "Queued")], []),
        ([task(A, "Failed"), task(B, "Success")], [B]),
    ]
    assert wait([A, B]) == [A.name]
    assert read_state()["interrupted"] == [A.name]


def test_cell_that_is_gone_from_the_queue_has_failed_but_not_one_that_a_look_missed(queue, capsys):
    running = [task(A, "Running")]
    queue.looks = [([], []), (running, []), ([], []), (running, []), ([task(A, "Success")], [A])]
    assert wait([A]) == []
    queue.looks = [([task(A, "Success")], [A])]
    assert wait([A, B]) == [B.name]
    assert f"error: {B.name} is no longer in the queue" in capsys.readouterr().err
    assert read_state()["interrupted"] == [B.name]


def test_worker_that_died_is_replaced_and_its_task_has_failed(queue):
    waiting = [task(A, "Running"), task(B, "Queued")]
    queue.looks = [(waiting, []), (waiting, []), ([task(A, "Failed"), task(B, "Success")], [B])]
    queue.workers = [0, 1, 0, 0, 1]  # the first was only late
    assert wait([A, B]) == [A.name]
    assert queue.calls == [f"end {A.name}", "dvc queue start"]


def test_workers_that_die_again_and_again_are_not_replaced_for_ever(queue):
    queue.looks, queue.workers = [([task(A, "Queued")], [])], [0]
    with pytest.raises(UserError, match="5 queue workers ended"):
        wait([A])
    assert queue.calls == ["dvc queue start"] * 5


@pytest.mark.parametrize(
    ("first", "workers", "kept", "calls", "interrupted"),
    [
        (["Queued", "Failed", "Queued"], 0, {A.name: "Queued"}, ["dvc queue remove"], [B.name]),
        (["Running"], 1, {A.name: "Running"}, [], []),
        (["Running"], 0, {A.name: "Queued"}, [f"end {A.name}", "dvc queue remove"], []),
    ],
    ids=["failed and unwanted", "alive", "without a worker"],
)
def test_settling_keeps_what_will_run_and_removes_the_rest(
    queue, first, workers, kept, calls, interrupted
):
    tasks = [task(cell, status) for cell, status in zip((A, B, OTHER), first, strict=False)]
    queue.looks = [(tasks, []), ([task(A, kept[A.name])], [])]
    queue.workers = [workers]
    assert settle([A, B]) == kept
    assert queue.calls == calls
    assert read_state()["interrupted"] == interrupted


def test_cell_that_ends_while_the_queue_is_asked_is_settled(queue):
    queue.looks = [([task(A, "Success")], [A])]
    assert settle([A]) == {}
    assert queue.calls == []


def test_dvc_is_asked_again_and_its_last_error_is_one_line(monkeypatch):
    """Its queue cannot be read while a task moves."""
    monkeypatch.setattr("project.PAUSE", 0.0)
    monkeypatch.setattr("project.Repo", lambda *_, **__: nullcontext())
    answers = iter([FileNotFoundError("moved"), "answer"])

    def question(_: object) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert ask_dvc(question) == "answer"
    answers = iter([FileNotFoundError("moved")] * 5)
    with pytest.raises(UserError, match=r"^DVC: moved; see `dvc queue status`$"):
        ask_dvc(question)

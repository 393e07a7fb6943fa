"""Waiting for cells and settling the queue, with a queue that is told what to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import compare_paths
import pytest

import compare_queue
from advloop.core.errors import UserError
from compare_cells import Arm, Cell
from compare_queue import Task, settle, wait
from compare_state import read_state

ARM = Arm("none", "none", None, 3)
A, B, OTHER = (Cell(ARM, seed, f"compare-none-{seed}-00000000") for seed in (0, 1, 2))


def task(cell: Cell, status: str) -> Task:
    return Task(f"{cell.seed:07d}", cell.name, status)


@dataclass
class Queue:
    """Says at each look the next of ``looks``: tasks, workers, and the cells finished by then."""

    looks: list[tuple[list[Task], int, list[Cell]]] = field(default_factory=list)
    done: dict[str, tuple[str, int]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def status(self) -> tuple[list[Task], int]:
        tasks, workers, finished = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        self.done |= {cell.name: ("0" * 40, 0) for cell in finished}
        return tasks, workers

    def run(self, *command: str, **_: bool) -> None:
        self.calls.append(" ".join(command[:3]))


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(compare_paths, "ROOT", tmp_path)
    monkeypatch.setattr(compare_queue, "queue_status", queue.status)
    monkeypatch.setattr(compare_queue, "experiments", lambda: dict(queue.done))
    monkeypatch.setattr(compare_queue, "failures", str)
    monkeypatch.setattr(compare_queue, "remember_seconds", lambda _: None)
    monkeypatch.setattr(compare_queue, "run", queue.run)
    monkeypatch.setattr(
        compare_queue, "end_task", lambda task: queue.calls.append(f"end {task.name}")
    )
    for name in ("POLL", "SOON", "ASK"):
        monkeypatch.setattr(compare_queue, name, 0.0)
    return queue


def test_waiting_ends_when_all_are_finished(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.looks = [
        ([task(A, "Running"), task(B, "Queued")], 1, []),
        ([task(A, "Success"), task(B, "Running")], 1, [A]),
        ([task(B, "Success")], 1, [B]),
    ]
    assert wait([A, B]) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{A.name}: done (1 of 2)", f"{B.name}: done (2 of 2)"]
    assert queue.calls == []


def test_failed_cell_does_not_stop_the_others_and_its_next_time_does_not_count(
    queue: Queue,
) -> None:
    queue.looks = [
        ([task(A, "Failed"), task(B, "Queued")], 1, []),
        ([task(A, "Failed"), task(B, "Success")], 1, [B]),
    ]
    assert wait([A, B]) == [A.name]
    assert read_state()["interrupted"] == [A.name]


def test_cell_that_is_gone_from_the_queue_has_failed(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.looks = [([task(A, "Success")], 1, [A])]
    assert wait([A, B]) == [B.name]
    assert f"error: {B.name} is not in the queue any more" in capsys.readouterr().err
    assert read_state()["interrupted"] == [B.name]


def test_worker_that_died_is_replaced_and_its_task_has_failed(queue: Queue) -> None:
    waiting = [task(A, "Running"), task(B, "Queued")]
    queue.looks = [
        (waiting, 0, []),
        (waiting, 0, []),  # asked again: it may only have been late
        ([task(A, "Failed"), task(B, "Success")], 1, [B]),
    ]
    assert wait([A, B]) == [A.name]
    assert queue.calls == [f"end {A.name}", "dvc queue start"]


def test_workers_that_die_again_and_again_are_not_replaced_for_ever(queue: Queue) -> None:
    queue.looks = [([task(A, "Queued")], 0, [])]
    with pytest.raises(UserError, match="5 queue workers ended"):
        wait([A])
    assert queue.calls == ["dvc queue start"] * 5


def test_settling_keeps_what_will_run_and_removes_the_rest(queue: Queue) -> None:
    queue.looks = [
        ([task(A, "Queued"), task(B, "Failed"), task(OTHER, "Queued")], 0, []),
        ([task(A, "Queued")], 0, []),
    ]
    assert settle([A, B]) == {A.name: "Queued"}
    assert queue.calls == ["dvc queue remove"]
    assert read_state()["interrupted"] == [B.name]


def test_cell_that_ends_while_the_queue_is_asked_is_settled(queue: Queue) -> None:
    queue.looks = [([task(A, "Success")], 1, [A])]
    assert settle([A]) == {}
    assert queue.calls == []

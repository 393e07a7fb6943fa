"""Kill a `dvc repro` in every way at chosen moments of a run, and go on with the next one."""

from __future__ import annotations

import contextlib
import math
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

DVC = Path(sys.executable).parent / "dvc"
REFUSED = "is still writing it"
# What DVC says of a file that it was killed in, and the command for it in docs/guarantees.md.
TORN = {
    "dvc.lock": (r"dvc\.lock' (validation failed|is invalid)", "git restore dvc.lock"),
    ".dvc/tmp/rwlock": (r"Unable to read RWLock-file", "rm .dvc/tmp/rwlock"),
}
LEAD = 2.0  # CPU seconds before a stage starts; DVC writes dvc.lock within them
STAGE = re.compile(r"^Running stage '(.+)':$", re.MULTILINE)  # as DVC says it


@dataclass(frozen=True)
class Kind:
    """A signal and its target: the whole process group, DVC alone, or the stage alone.

    Target "lock": DVC, in the half second in which it writes dvc.lock.
    """

    name: str
    signal: signal.Signals
    target: str


KINDS = (
    Kind("SIGKILL to the process group", signal.SIGKILL, "group"),
    Kind("SIGKILL to DVC alone", signal.SIGKILL, "dvc"),
    Kind("SIGKILL to the stage alone", signal.SIGKILL, "stage"),
    Kind("SIGINT to the process group", signal.SIGINT, "group"),
    Kind("SIGTERM to the process group", signal.SIGTERM, "group"),
    Kind("SIGKILL to DVC as it writes dvc.lock", signal.SIGKILL, "lock"),
)


@dataclass
class Strike:
    """One kill, and the stage that it hit.

    refused: the next `dvc repro` met an orphan. torn: the files of TORN that it found half written.
    """

    kind: Kind
    stage: str
    refused: bool = False
    torn: list[str] = field(default_factory=list)


@dataclass
class Survival:
    """All kills of a run, and the CPU seconds of all its attempts together."""

    strikes: list[Strike]
    cpu_seconds: float


@dataclass
class Course:
    """An undisturbed run, in CPU seconds: when each stage began, in order, and the end."""

    starts: dict[str, float]
    cpu_seconds: float

    def limit(self, starts: Mapping[str, float], place: float) -> float:
        """When an attempt with these starts is at ``place``, in its CPU seconds; inf if unknown.

        Its first stage that this run saw, too, counts as begun where it began here. A stage that
        takes a moment may have been missed.
        """
        seen = [stage for stage in starts if stage in self.starts]
        return starts[seen[0]] + place - self.starts[seen[0]] if seen else math.inf


class Attempt:
    """A `dvc repro` in a session of its own, whose output goes to ``log``."""

    def __init__(self, project: Path, log: Path, env: Mapping[str, str] | None) -> None:
        self.project, self.log, self.cpu_seconds = project, log, 0.0
        self.starts: dict[str, float] = {}  # CPU seconds when each stage began
        with log.open("wb") as file:
            self.process = psutil.Popen(
                [str(DVC), "repro"],
                cwd=project,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # a background job ignores SIGINT, and its children inherit that
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def family(self) -> list[psutil.Process]:
        """DVC first, then the shell and the stage that it runs."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _worked(self) -> float:
        seconds = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
                seconds += times.children_user + times.children_system
        return seconds

    def look(self) -> None:
        self.cpu_seconds = max(self.cpu_seconds, self._worked())
        for stage in STAGE.findall(self.text()):
            self.starts.setdefault(stage, self.cpu_seconds)

    def work(self, place: float, course: Course | None = None) -> bool:
        """Let it run to this place of an undisturbed run, or to its end; whether it has ended.

        What DVC skips, or a snapshot restores, takes no time here, so it may end too soon: the
        start of the last stage counts as any later place.
        """
        limit = math.inf
        last = list(course.starts)[-1] if course else None
        while self.cpu_seconds < limit:
            try:
                self.process.wait(timeout=0.05)
            except psutil.TimeoutExpired:
                self.look()
                if course and self.starts:
                    limit = course.limit(self.starts, place)
                    if last in self.starts and place < math.inf:
                        return False
                continue
            return True
        return False

    def await_lock_write(self) -> None:
        """Wait until DVC has emptied dvc.lock to write it again, or until it ends."""
        lock, size = self.project / "dvc.lock", 0
        while self.process.poll() is None:
            before, size = size, lock.stat().st_size
            if before and not size:
                return
            time.sleep(0.005)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


def undisturbed(attempt: Attempt) -> Course:
    """The course of an attempt that is left alone; RuntimeError if it fails."""
    attempt.work(math.inf)
    if attempt.process.returncode:
        raise RuntimeError(f"`dvc repro` failed by itself:\n{attempt.text()[-2000:]}")
    return Course(attempt.starts, attempt.cpu_seconds)


def stage_of(processes: list[psutil.Process]) -> tuple[psutil.Process | None, str]:
    """The process of a stage and the name of its script; (None, "DVC") between two stages."""
    for process in reversed(processes):
        try:
            script = next((a for a in process.cmdline() if a.startswith("stages/")), None)
        except psutil.Error:
            continue
        if script and process.name() != "sh":
            return process, Path(script).stem
    return None, "DVC"


def strike(attempt: Attempt, kind: Kind) -> tuple[Strike, list[psutil.Process]]:
    """Kill, and wait until DVC has ended; also returns the processes that outlive it."""
    if kind.target == "lock":
        attempt.await_lock_write()
    family = attempt.family()
    stage, name = stage_of(family)
    victims = {"group": family, "stage": [stage or attempt.process]}
    for victim in victims.get(kind.target, [attempt.process]):
        try:
            victim.send_signal(kind.signal)
        except psutil.NoSuchProcess:  # it has just ended by itself
            continue
    attempt.process.wait(timeout=120)
    _, alive = psutil.wait_procs([p for p in family if p.pid != attempt.process.pid], timeout=0.5)
    return Strike(kind, name), alive


def torn_file(text: str) -> str | None:
    """The file of TORN that DVC names in ``text``."""
    return next((name for name, (said, _) in TORN.items() if re.search(said, text)), None)


def draw_moments(
    kills: int, course: Course, seed: int, since: str | None = None
) -> list[tuple[float, Kind]]:
    """Random places of the course after ``since`` has begun, in order; the kinds take turns.

    DVC writes dvc.lock before a stage begins, so a kill of target "lock" comes just before one.
    """
    draws = random.Random(seed)
    first = course.starts[since] if since else 0.0
    starts = [start for start in course.starts.values() if start > first]
    moments = []
    for number in range(kills):
        kind = KINDS[number % len(KINDS)]
        place = draws.uniform(first, course.cpu_seconds)
        if kind.target == "lock":
            place = draws.choice(starts) - LEAD
        moments.append((place, kind))
    return sorted(moments, key=lambda moment: moment[0])


def survive(
    project: Path,
    kills: int,
    course: Course,
    seed: int,
    env: Mapping[str, str] | None = None,
    since: str | None = None,
) -> Survival:
    """Run ``project`` to its end with so many kills; RuntimeError if it does not get there.

    The kills come at random places of ``course``, an undisturbed run, after stage ``since`` has
    begun. Places are in CPU time, because wall time depends on the load of the machine. What DVC
    left half written is mended as docs/guarantees.md says.
    """
    folder = Path(tempfile.mkdtemp())
    strikes: list[Strike] = []
    orphans: list[psutil.Process] = []
    worked = 0.0
    moments = draw_moments(kills, course, seed, since)
    attempts = 0
    while True:
        attempts += 1
        if attempts > 3 * kills + 3:
            raise RuntimeError(f"no end after {attempts} attempts; see {folder}")
        attempt = Attempt(project, folder / f"{attempts}.log", env)
        place, kind = moments[len(strikes)] if len(strikes) < kills else (math.inf, KINDS[0])
        ended = attempt.work(place, course)
        worked += attempt.cpu_seconds
        if not ended:
            one, alive = strike(attempt, kind)
            # an orphan of an earlier kill may still be alive, and refuse the next attempt as well
            orphans = [process for process in orphans if process.is_running()] + alive
            strikes.append(one)
            print(f"{len(strikes)}: {one.kind.name} during {one.stage}", flush=True)
            continue
        if attempt.process.returncode == 0:
            return Survival(strikes, worked)
        if REFUSED in attempt.text() and orphans:
            strikes[-1].refused = True
            psutil.wait_procs(orphans)
        elif (torn := torn_file(attempt.text())) and torn not in strikes[-1].torn:
            strikes[-1].torn.append(torn)
            subprocess.run(TORN[torn][1].split(), cwd=project, check=True)
        else:
            raise RuntimeError(f"`dvc repro` failed by itself:\n{attempt.text()[-2000:]}")

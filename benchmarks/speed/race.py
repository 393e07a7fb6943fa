"""Time contenders in turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """``run`` does ``units`` of work. ``ours``: the one that the others are compared with.

    target: the least that our rate should be, as a multiple of this one's; None for no target.
    """

    name: str
    run: Callable[[], object]
    units: float
    ours: bool = False
    target: float | None = None


@dataclass(frozen=True)
class Sample:
    """One round of one contender.

    seconds: by the wall clock. cpu: of this process on all cores, which other load on the machine
    hardly changes.
    """

    subject: str
    shape: str
    contender: str
    ours: bool
    round: int
    seconds: float
    cpu: float
    units: float
    unit: str
    target: float | None = None


def race(
    subject: str,
    shape: str,
    contenders: Sequence[Contender],
    unit: str,
    rounds: int,
    wait: Callable[[], object] = lambda: None,
) -> list[Sample]:
    """One round of warm-up, then ``rounds`` that are measured; the order rotates.

    wait: returns when the device has finished its work.
    """
    samples = []
    for index in range(rounds + 1):
        turn = index % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            wait()
            began, cpu = time.perf_counter(), time.process_time()
            contender.run()
            wait()
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            if index:
                samples.append(
                    Sample(
                        subject,
                        shape,
                        contender.name,
                        contender.ours,
                        index - 1,
                        seconds,
                        cpu,
                        contender.units,
                        unit,
                        contender.target,
                    )
                )
    return samples


def of(samples: Iterable[Sample], contender: str) -> list[Sample]:
    """The rounds of one contender, in order."""
    return sorted((s for s in samples if s.contender == contender), key=lambda s: s.round)


def ratio(
    samples: Sequence[Sample], other: str, clock: Callable[[Sample], float]
) -> tuple[float, float, float]:
    """Our rate over ``other``'s by ``clock``: lowest, median and highest of the rounds."""
    ours = sorted((s for s in samples if s.ours), key=lambda s: s.round)
    found = [
        (clock(theirs) / theirs.units) / (clock(mine) / mine.units)
        for mine, theirs in zip(ours, of(samples, other), strict=True)
    ]
    return min(found), statistics.median(found), max(found)

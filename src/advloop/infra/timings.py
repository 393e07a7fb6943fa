"""How long each stage took, and on what machine.

No result depends on it: equal runs have equal results but different times. So the records lie in
``.state``, where nothing is hashed, and only ``tools/timed_report.py`` puts them into a copy of the
report that DVC does not know.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF

from advloop.core.errors import UserError
from advloop.core.files import read_json, write_json

FOLDER = Path(".state/timings")
NOT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9_@.-]")


@dataclass(frozen=True)
class Timing:
    """The cost of a stage when it last ran."""

    stage: str
    seconds: float
    memory: float  # MiB: the peak of its largest process
    machine: str
    finished: str  # UTC


def record(stage: str, folder: Path = FOLDER) -> None:
    """Record what this process has cost so far as the cost of ``stage``."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    timing = Timing(
        stage,
        round(_age(), 1),
        round(max(peaks) / 1024, 0),
        machine(),
        time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    )
    write_json(folder / f"{NOT_IN_A_FILE_NAME.sub('_', stage)}.json", asdict(timing))


def read_timings(folder: Path = FOLDER) -> list[Timing]:
    """One record for each stage that ran here, ordered by when it finished.

    UserError if a record is damaged.
    """
    timings = [_read(path) for path in folder.glob("[!.]*.json")]
    return sorted(timings, key=lambda timing: (timing.finished, timing.stage))


def _read(path: Path) -> Timing:
    content = read_json(path)
    kinds = {f.name: str if f.type == "str" else (int, float) for f in fields(Timing)}
    if not isinstance(content, Mapping) or set(content) != set(kinds):
        raise UserError(f"{path}: not the record of a stage; remove it")
    if wrong := [name for name, kind in kinds.items() if not isinstance(content[name], kind)]:
        raise UserError(f"{path}: {wrong[0]}={content[wrong[0]]} has the wrong type; remove it")
    return Timing(**content)


def machine() -> str:
    """The processor, its cores, torch's threads, and the GPU if this process has used one."""
    parts = [f"{_processor()}, {os.cpu_count()} cores"]
    torch = sys.modules.get("torch")  # a light stage has not loaded it
    if torch:
        count = torch.get_num_threads()
        parts.append("1 thread" if count == 1 else f"{count} threads")
        if torch.cuda.is_initialized():
            parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _age() -> float:
    """Seconds since this process started, imports included (man 5 proc, starttime)."""
    values = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(values[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began

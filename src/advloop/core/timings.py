"""How long each stage took and on what: facts of a machine, so no result of the pipeline.

Equal runs have equal results and other times. So these records lie beside the pipeline, where
nothing hashes them, and the report's page has a place for them that its own bytes leave empty.
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
from advloop.core.io import read_json, write_json

FOLDER = Path(".state/timings")
UNFIT = re.compile(r"[^A-Za-z0-9_@.-]")  # for the name of a file


@dataclass(frozen=True)
class Timing:
    """One run of a stage. memory: most that one of its processes held, MiB; finished: UTC."""

    stage: str
    seconds: float
    memory: float
    machine: str
    finished: str


def record(stage: str, folder: Path = FOLDER) -> None:
    """Note what this process has cost so far as the cost of ``stage``."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    timing = Timing(
        stage,
        round(_age(), 1),
        round(max(peaks) / 1024, 0),
        machine(),
        time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    )
    write_json(folder / f"{UNFIT.sub('_', stage)}.json", asdict(timing))


def read_timings(folder: Path = FOLDER) -> list[Timing]:
    """Of every stage that ran here, in the order in which they finished; the last time of each."""
    return sorted(
        (_read(path) for path in folder.glob("[!.]*.json")), key=lambda t: (t.finished, t.stage)
    )


def _read(path: Path) -> Timing:
    content = read_json(path)
    kinds = {f.name: str if f.type == "str" else (int, float) for f in fields(Timing)}
    if not isinstance(content, Mapping) or set(content) != set(kinds):
        raise UserError(f"{path}: not the record of a stage; remove it")
    if wrong := [name for name, kind in kinds.items() if not isinstance(content[name], kind)]:
        raise UserError(f"{path}: {wrong[0]}={content[wrong[0]]} is unfit; remove the file")
    return Timing(**content)


def machine() -> str:
    """Processor, its cores, torch's threads, and the GPU where this process has used one."""
    parts = [f"{_processor()}, {os.cpu_count()} cores"]
    torch = sys.modules.get("torch")
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
    """Seconds since this process began, imports and all (man 5 proc, starttime)."""
    values = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(values[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began

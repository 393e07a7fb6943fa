"""Results of `make bench`: CSV files, and the page that is made from them."""

from __future__ import annotations

import csv
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from memory import Peak
from quality import Quality
from race import Sample, of, ratio

TITLES = {
    "training": "Training step",
    "generation": "DDIM generation",
    "discriminator": "Discriminator epoch",
    "encoding": "Encoding",
    "startup": "Starting the stages",
    "noop": "`dvc repro` with nothing to do",
    "ranks": "Several processes",
    "memory": "Peak memory",
    "quality": "Quality in bf16",
}
HEAD = """# Benchmarks

Made by `make bench` (`make bench ONLY=training,memory` for some) from the CSV files in
[`docs/benchmarks/`](benchmarks). The contenders of a table took turns in one process. Seconds: the
median of the rounds (lowest to highest). Speed-up: our rate over that contender's, likewise, by the
wall clock and by the CPU time of the process, which other work on the machine changes less; on a
GPU, CPU time says little. Target: the speed-up by the wall clock that we wanted, and whether the
median met it. Sizes and batches are in `benchmarks/speed/subjects.py`. Shape demo is that of
`params.yaml`, full that of `conf/scale/full.yaml`.
"""


Record = TypeVar("Record", Sample, Peak, Quality)
PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: "True".__eq__,
    float | None: lambda text: float(text) if text else None,
}


def machine_name(device: object) -> str:
    """What the seconds depend on: processor, instructions, threads, torch, load."""
    import torch

    threads, version = torch.get_num_threads(), torch.__version__
    if str(device).startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {version}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    instructions = torch.backends.cpu.get_cpu_capability()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    busy = f"load average {os.getloadavg()[0]:.1f}, this process included"
    name = (names or [platform.machine()])[0]
    return ", ".join([name, instructions, count, f"torch {version}", busy])


def write(path: Path, records: Sequence[Record], machine: str = "") -> None:
    """Dataclasses of one kind as a CSV file, with the machine in a last column if it is given."""
    rows = [asdict(record) | ({"machine": machine} if machine else {}) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def read(path: Path, kind: type[Record]) -> tuple[list[Record], str]:
    """What ``write`` wrote: the records, and the machine that they are from ("" if not given)."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    types = get_type_hints(kind)
    records = [kind(**{name: PARSERS[types[name]](row[name]) for name in types}) for row in rows]
    return records, rows[0].get("machine", "")


def page(folder: Path) -> str:
    """docs/benchmarks.md, from all CSV files in ``folder``."""
    parts = [HEAD]
    for subject, title in TITLES.items():
        for path in sorted(folder.glob(f"*_{subject}.csv")):
            parts.append(f"\n## {title}: {path.stem.removesuffix(f'_{subject}')}\n\n")
            if subject == "memory":
                parts.append(memory_table(read(path, Peak)[0]))
                continue
            if subject == "quality":
                parts.append(quality_table(read(path, Quality)[0]))
                continue
            samples, machine = read(path, Sample)
            parts.append(f"{machine}.\n\n")
            make = race_table if any(not s.ours for s in samples) else process_table
            parts.append(make(samples))
    return "".join(parts)


def median_and_range(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def race_table(samples: Sequence[Sample]) -> str:
    lines = [
        "| shape | contender | seconds | rate | speed-up, wall | speed-up, CPU | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape in dict.fromkeys(s.shape for s in samples):
        group = [s for s in samples if s.shape == shape]
        for name in dict.fromkeys(s.contender for s in sorted(group, key=lambda s: not s.ours)):
            rounds = of(group, name)
            rate = rounds[0].units / statistics.median(s.seconds for s in rounds)
            cells = [
                shape,
                name,
                median_and_range(s.seconds for s in rounds),
                f"{rate:,.1f} {rounds[0].unit}/s",
            ]
            cells += ["", "", ""] if rounds[0].ours else _speed_up(group, name, rounds[0].target)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _speed_up(group: Sequence[Sample], name: str, target: float | None) -> list[str]:
    wall = ratio(group, name, lambda sample: sample.seconds)
    cpu = ratio(group, name, lambda sample: sample.cpu)
    verdict = ""
    if target is not None:
        verdict = f"{target:g}: {'met' if wall[1] >= target else 'missed'}"
    return [*(f"{r[1]:.2f} ({r[0]:.2f} to {r[2]:.2f})" for r in (wall, cpu)), verdict]


def process_table(samples: Sequence[Sample]) -> str:
    lines = ["| what | seconds, wall | seconds, CPU |", "|---|---|---|"]
    for shape in dict.fromkeys(s.shape for s in samples):
        group = [s for s in samples if s.shape == shape]
        lines.append(
            f"| {shape} | {median_and_range(s.seconds for s in group)} "
            f"| {median_and_range(s.cpu for s in group)} |"
        )
    return "\n".join(lines) + "\n"


def memory_table(peaks: Sequence[Peak]) -> str:
    counts = sorted({peak.count for peak in peaks})
    heads = [f"own, N = {n:,} | total" for n in counts]
    lines = [
        "MiB of a stage over N latents of 4 KiB (and images of 3 KiB). Own: memory that the kernel "
        "cannot\ntake back. Total: with the pages of mapped files, which it takes back when it "
        "needs room.\n",
        f"| stage | {' | '.join(heads)} |",
        "|---" * (1 + 2 * len(counts)) + "|",
    ]
    for stage in dict.fromkeys(peak.stage for peak in peaks):
        found = {peak.count: peak for peak in peaks if peak.stage == stage}
        cells = [f"{found[n].own:.0f} | {found[n].total:.0f}" for n in counts]
        lines.append(f"| `{stage}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + growth_table(peaks)


def quality_table(found: Sequence[Quality]) -> str:
    lines = [
        "The last model of the run in `outputs/`, computed in each precision and measured as in "
        "stage `evaluate`.\nSeconds: for samples and metrics together.\n",
        "| model | precision | seconds | KID | critic gap | test noise loss |",
        "|---|---|---|---|---|---|",
        *(
            f"| {q.model} | {q.precision} | {q.seconds:.1f} | {q.kid:.4f} ± {q.kid_ci95:.4f} | "
            f"{q.critic_gap:.4f} ± {q.critic_gap_ci95:.4f} | {q.test_noise_loss:.6f} |"
            for q in found
        ),
    ]
    return "\n".join(lines) + "\n"


def growth_table(peaks: Sequence[Peak]) -> str:
    """What each further latent costs; empty if only one count was measured."""
    counts = sorted({peak.count for peak in peaks})
    steps = list(pairwise(counts))
    if not steps:
        return ""
    lines = [
        "\nSeconds of the same runs with their start, and milliseconds for each latent beyond the "
        "smaller N.\n`train_diffusion` takes the same number of latents, whatever N is.\n",
        "| stage | "
        + " | ".join([f"N = {n:,}" for n in counts] + [f"{a:,} to {b:,}" for a, b in steps])
        + " |",
        "|---" * (1 + len(counts) + len(steps)) + "|",
    ]
    for stage in dict.fromkeys(peak.stage for peak in peaks):
        found = {peak.count: peak.seconds for peak in peaks if peak.stage == stage}
        cells = [f"{found[n]:.1f}" for n in counts]
        cells += [f"{1000 * (found[b] - found[a]) / (b - a):.2f}" for a, b in steps]
        lines.append(f"| `{stage}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

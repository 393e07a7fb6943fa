"""Results of `make bench` as CSV files, and the page that is made of them."""

from __future__ import annotations

import csv
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path

from bench_memory import Peak
from bench_quality import Quality
from race import Sample, of, ratio

TITLES = {
    "training": "Training step",
    "generation": "DDIM generation",
    "discriminator": "Discriminator epoch",
    "encoding": "Encoding",
    "startup": "Start-up of the stages",
    "noop": "A repro of nothing",
    "ranks": "Several processes",
    "memory": "Peak memory",
    "quality": "Quality in bf16",
}
HEAD = """# Benchmarks

Made by `make bench` (`make bench ONLY=training,memory` for some) of the CSV files in
[`docs/benchmarks/`](benchmarks). The contenders of a table ran in turns in one process. Seconds:
the median of the rounds (least to most). Over it: our rate over that contender's, the median of the
rounds (least to most), by the wall clock, and by the seconds of CPU that the process had, which
other work on the machine changes less; on a GPU those say little. Target: how many times the
contender's our rate was to be by the wall clock, met or missed by the median. Sizes and batches
stand in `benchmarks/bench_subjects.py`; shape demo is that of `params.yaml`, full that of
`conf/scale/full.yaml`.
"""


def machine(where: object) -> str:
    """What the seconds depend on: the processor, threads, torch."""
    import torch

    threads, version = torch.get_num_threads(), torch.__version__
    if str(where).startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {version}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    instructions = torch.backends.cpu.get_cpu_capability()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    busy = f"load average {os.getloadavg()[0]:.1f}, this process included"
    name = (names or [platform.machine()])[0]
    return ", ".join([name, instructions, count, f"torch {version}", busy])


def write_samples(path: Path, samples: Sequence[Sample], on: str) -> None:
    _write(path, [asdict(sample) | {"machine": on} for sample in samples])


def write_peaks(path: Path, peaks: Sequence[Peak]) -> None:
    _write(path, [asdict(peak) for peak in peaks])


def write_qualities(path: Path, found: Sequence[Quality]) -> None:
    _write(path, [asdict(quality) for quality in found])


def _write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def read_samples(path: Path) -> tuple[list[Sample], str]:
    """What ``write_samples`` wrote: the samples, and the machine that they are from."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds: dict[str, Callable[[str], object]] = {
        "ours": "True".__eq__,
        "round": int,
        "seconds": float,
        "cpu": float,
        "units": float,
        "target": lambda text: float(text) if text else None,
    }
    names = [field.name for field in fields(Sample)]
    samples = [Sample(**{n: kinds.get(n, str)(row[n]) for n in names}) for row in rows]  # type: ignore[arg-type]  # each of its field's type
    return samples, rows[0]["machine"]


def read_qualities(path: Path) -> list[Quality]:
    with path.open(newline="") as file:
        return [
            Quality(**{k: v if k in ("model", "precision") else float(v) for k, v in row.items()})  # type: ignore[arg-type]  # each of its field's type
            for row in csv.DictReader(file)
        ]


def read_peaks(path: Path) -> list[Peak]:
    with path.open(newline="") as file:
        return [
            Peak(
                row["stage"],
                int(row["count"]),
                float(row["own"]),
                float(row["total"]),
                float(row["seconds"]),
            )
            for row in csv.DictReader(file)
        ]


def page(folder: Path) -> str:
    """docs/benchmarks.md, of all CSV files in ``folder``."""
    parts = [HEAD]
    for subject, title in TITLES.items():
        for path in sorted(folder.glob(f"*_{subject}.csv")):
            parts.append(f"\n## {title}: {path.stem.removesuffix(f'_{subject}')}\n\n")
            if subject == "memory":
                parts.append(memory_table(read_peaks(path)))
                continue
            if subject == "quality":
                parts.append(quality_table(read_qualities(path)))
                continue
            samples, on = read_samples(path)
            parts.append(f"{on}.\n\n")
            make = race_table if any(not s.ours for s in samples) else process_table
            parts.append(make(samples))
    return "".join(parts)


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def race_table(samples: Sequence[Sample]) -> str:
    lines = [
        "| shape | contender | seconds | rate | over it, wall | over it, CPU | target |",
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
                spread(s.seconds for s in rounds),
                f"{rate:,.1f} {rounds[0].unit}/s",
            ]
            cells += ["", "", ""] if rounds[0].ours else _against(group, name, rounds[0].target)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _against(group: Sequence[Sample], name: str, target: float | None) -> list[str]:
    wall, cpu = (ratio(group, name, clock) for clock in (_seconds, _cpu))
    verdict = ""
    if target is not None:
        verdict = f"{target:g}: {'met' if wall[1] >= target else 'missed'}"
    return [*(f"{r[1]:.2f} ({r[0]:.2f} to {r[2]:.2f})" for r in (wall, cpu)), verdict]


def _seconds(sample: Sample) -> float:
    return sample.seconds


def _cpu(sample: Sample) -> float:
    return sample.cpu


def process_table(samples: Sequence[Sample]) -> str:
    lines = ["| what | seconds, wall | seconds, CPU |", "|---|---|---|"]
    for shape in dict.fromkeys(s.shape for s in samples):
        group = [s for s in samples if s.shape == shape]
        lines.append(
            f"| {shape} | {spread(s.seconds for s in group)} | {spread(s.cpu for s in group)} |"
        )
    return "\n".join(lines) + "\n"


def memory_table(peaks: Sequence[Peak]) -> str:
    counts = sorted({peak.count for peak in peaks})
    heads = [f"own, N = {n:,} | in all" for n in counts]
    lines = [
        "MiB of a stage over N latents of 4 KiB (and images of 3 KiB). Own: memory that the kernel "
        "cannot\ntake back. In all: with the pages of mapped files, which it takes back when it "
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
        "The last model of the run that lies in `outputs/`, computed in either precision and "
        "measured as stage\n`evaluate` does. Seconds: of samples and metrics together.\n",
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
    """What each further latent costs; nothing where one count was measured."""
    counts = sorted({peak.count for peak in peaks})
    steps = list(pairwise(counts))
    if not steps:
        return ""
    lines = [
        "\nSeconds of the same runs, start-up and all, and milliseconds of each latent beyond the "
        "smaller N.\n`train_diffusion` draws as many of them whatever N is.\n",
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

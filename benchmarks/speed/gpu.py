"""What scale full reaches on this machine's GPU, beside its targets, within a time limit.

`python benchmarks/speed/gpu.py --out FOLDER` prints each part and adds it to FOLDER/gpu.json, the
most important parts first. A part that fails prints its error, and the next one starts; a part that
would not fit in --seconds is left out. `--tiny` runs the same on a CPU, with the shapes of demo and
next to no work: its figures mean nothing.

The targets are those of an H200; on another GPU they are in proportion to its measured peak.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import gpu_checks
import gpu_kernels
import gpu_speed
import variants
from advloop.core.device import pick_device
from advloop.infra.output import print_safely
from gpu_bench import Bench, as_in_a_stage
from tables import machine_name

Part = Callable[[Bench], None]


def parts(bench: Bench) -> dict[str, tuple[Part, float]]:
    """By name, the most important first: the part, and the seconds that it may take."""
    quick = [make for make in variants.GPU_VARIANTS if "compiled" not in make.__name__]
    found: dict[str, tuple[Part, float]] = {
        "peak": (gpu_speed.peak, 3),
        "training": (gpu_speed.training_step, 25),
        "sampling": (gpu_speed.sampling, 15),
        "host": (gpu_speed.host, 4),
        "profile": (gpu_kernels.profile, 8),
        **{variants.title(make): (gpu_kernels.variant(make), 4) for make in quick},
        "flags": (gpu_kernels.flags, 4),
        **gpu_checks.PARTS,
        "other networks": (gpu_speed.other_networks, 12),
    }
    if not bench.tiny:
        found["compiled norms"] = (gpu_kernels.variant(variants.compiled_norms), 20)
        found["compiled"] = (gpu_kernels.variant(variants.compiled), 45)
    found["two processes"] = (gpu_checks.two_processes, 25)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json")
    parser.add_argument("--seconds", type=float, default=160.0, help="in which the last part ends")
    parser.add_argument("--only", metavar="LIST", help="comma-separated parts")
    parser.add_argument("--tiny", action="store_true", help="next to no work, on any device")
    args = parser.parse_args(arguments)
    began = time.perf_counter()
    bench = Bench(pick_device(), args.out, args.tiny)
    if not (bench.gpu or bench.tiny):
        sys.exit("error: no GPU; --tiny tries the script without one")
    print(f"{machine_name(bench.device)}, cuDNN {torch.backends.cudnn.version()}", flush=True)
    with as_in_a_stage():
        pass  # cuBLAS reads its setting once
    everything = parts(bench)
    for name in args.only.split(",") if args.only else everything:
        part, needed = everything[name]
        left = args.seconds - (time.perf_counter() - began)
        print(f"{name}: {left:.0f} s left", flush=True)
        bench.part = name
        if left < needed:
            bench.note(f"left out: may take {needed:.0f} s")
            continue
        try:
            part(bench)
        except Exception as error:  # the other parts do not depend on it
            bench.note(f"failed: {type(error).__name__}: {str(error)[:1000]}")
            traceback.print_exc()
        bench.save()
        if bench.gpu:
            torch.cuda.empty_cache()
    print(f"{time.perf_counter() - began:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()

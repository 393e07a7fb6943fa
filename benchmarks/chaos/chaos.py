"""Kill the pipeline again and again, go on with `dvc repro`, and compare with an undisturbed run.

`python benchmarks/chaos/chaos.py` clones the committed project twice into a temporary folder. One
clone runs undisturbed; the other is killed at random (seeded) moments, each time in the next way of
KINDS. In the end both must have the same dvc.lock, byte for byte. The result is docs/chaos.md. It
takes two whole runs, and the work that the kills undo; `--set` makes the runs shorter.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from advloop.core.errors import counted
from advloop.infra.output import print_safely
from kills import DVC, KINDS, TORN, Attempt, Survival, survive, undisturbed

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/chaos.md"
# As `dvc exp run -S` composes params.yaml, in a process of its own, in the folder of the project.
COMPOSE = """
import os, sys
from dvc.utils.hydra import compose_and_dump
folders = os.path.abspath("conf"), None, "config", os.path.abspath("src")
compose_and_dump("params.yaml", *folders, sys.argv[1:])
"""


def report(survival: Survival, calm: float, *, same: bool, scale: str, call: str) -> str:
    """docs/chaos.md."""
    strikes = survival.strikes
    extra = survival.cpu_seconds - calm
    refused = sum(one.refused for one in strikes)
    torn = {name: sum(name in one.torn for one in strikes) for name in TORN}
    lines = [
        "# Kills survived",
        "",
        f"Made, at scale {scale}, by `python benchmarks/chaos/chaos.py {call}`.",
        "",
        f"- {len(strikes)} kills, then dvc.lock "
        f"{'identical to' if same else 'DIFFERENT FROM'} that of an undisturbed run.",
        f"- Undisturbed: {calm:.0f} s of CPU time. With all kills: "
        f"{survival.cpu_seconds:.0f} s, {extra / len(strikes):.1f} s more for each kill, to "
        "start again and to repeat work.",
        f"- {counted(refused, 'time')} the next `dvc repro` met a stage that had "
        "outlived its DVC, and stopped with a message instead of writing the same files.",
        f"- {counted(torn['dvc.lock'], 'time')} it found half a dvc.lock. After "
        "`git restore dvc.lock`, DVC took the finished stages from its run-cache.",
        f"- {counted(torn['.dvc/tmp/rwlock'], 'time')} it found half a file in "
        "which DVC notes what it is using, and went on after `rm .dvc/tmp/rwlock`.",
        "",
        "| kind | kills | during |",
        "|---|---|---|",
    ]
    for kind in KINDS:
        found = [one.stage for one in strikes if one.kind is kind]
        lines.append(f"| {kind.name} | {len(found)} | {', '.join(found)} |")
    return "\n".join(lines) + "\n"


def clone(folder: Path, settings: Sequence[str]) -> Path:
    """A clone of the committed project in which no stage has run, with ``settings`` changed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    if settings:
        subprocess.run([sys.executable, "-c", COMPOSE, *settings], cwd=folder, check=True)
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    identity = ("-c", "user.name=chaos", "-c", "user.email=chaos@example.invalid")
    start = ("commit", "--quiet", "--no-gpg-sign", "--all", "--message", "Start from nothing")
    subprocess.run(["git", *identity, *start], cwd=folder, check=True)
    return folder


def main() -> int:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--set", nargs="*", default=[], help="parameters to change, as name=value")
    args = parser.parse_args()
    env = os.environ | {"PATH": f"{DVC.parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as temporary:
        calm, wild = (clone(Path(temporary) / name, args.set) for name in ("calm", "wild"))
        course = undisturbed(Attempt(calm, Path(temporary) / "calm.log", env))
        survival = survive(wild, args.kills, course, args.seed, env)
        same = (calm / "dvc.lock").read_bytes() == (wild / "dvc.lock").read_bytes()
    scale = (ROOT / "params.yaml").read_text().partition("scale: ")[2].split()[0]
    call = f"--kills {args.kills} --seed {args.seed}"
    if args.set:
        call += f" --set {shlex.join(args.set)}"
    text = report(survival, course.cpu_seconds, same=same, scale=scale, call=call)
    print(text)
    PAGE.write_text(text)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

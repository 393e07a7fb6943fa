"""The default rounds on other images and another network: `make transfer` writes docs/transfer.md.

plan.yaml, committed before the runs, says which. Each run is an experiment in a clone of its own
under .transfer/, so that it resumes where it stopped, and leaves this folder as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import yaml

from rendered_images import draw_images

ROOT = Path(__file__).resolve().parents[2]
CLONES = ROOT / ".transfer"
PLAN: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "plan.yaml").read_text())


def run(name: str) -> None:
    """Make or finish the run's clone and its experiment."""
    clone, wanted = CLONES / name, PLAN["runs"][name]
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    settings = [f"seed={PLAN['seed']}", f"exp_name={name}", *wanted["settings"]]
    if images := wanted["images"]:
        if not (clone / "data" / images).exists():
            draw_images(images, clone / "data" / images)
        settings.append(f"data.source=data/{images}")
    options = [word for setting in settings for word in ("-S", setting)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(["dvc", "exp", "run", *options], cwd=clone, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="*", default=list(PLAN["runs"]), help="of plan.yaml")
    for name in parser.parse_args().runs:
        run(name)


if __name__ == "__main__":
    main()

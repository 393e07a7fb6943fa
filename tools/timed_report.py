"""Write reports/report_timed.html: the report with the time and hardware of each stage.

Times differ between runs, so reports/report.html has none: DVC hashes it and git keeps it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.errors import UserError
from advloop.core.files import write_text
from advloop.infra.output import print_safely
from advloop.infra.timings import FOLDER, read_timings
from advloop.params.loader import Params
from advloop.params.run import read_num_iterations
from advloop.reporting.template import with_timings

ROOT = Path(__file__).resolve().parents[1]
PAGE, TIMED = Path("reports/report.html"), Path("reports/report_timed.html")


def commit_of(project: Path) -> str:
    """The commit that is checked out, and whether files differ from it; "" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def write_timed(project: Path) -> Path:
    """Write the page of ``project`` with the times of its stages, and return its path."""
    try:
        text = (project / PAGE).read_bytes().decode()
    except FileNotFoundError:
        raise UserError(f"{PAGE}: not found; make it with `dvc repro`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{PAGE}: cannot be read ({error}); make it with `dvc repro`") from None
    rounds = read_num_iterations(Params.load(project / "params.yaml"))
    timings = [
        timing
        for timing in read_timings(project / FOLDER)
        if not (found := re.search(r"@([0-9]+)", timing.stage)) or int(found[1]) < rounds
    ]
    write_text(project / TIMED, with_timings(text, timings, commit_of(project)))
    return TIMED


if __name__ == "__main__":
    print_safely()
    try:
        print(f"{write_timed(ROOT)}: the report, with times and hardware")
    except UserError as error:
        sys.exit(f"error: {error}")

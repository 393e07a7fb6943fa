"""Say what a run would make of a folder or an archive of images: `make check-data SOURCE=path`.

Goes by the section `data` of params.yaml, and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.errors import UserError  # found on the path set above
from advloop.params.data import DataParams
from advloop.params.loader import Params
from advloop.preparation.source_check import check_source
from advloop.preparation.sources import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", help="that of params.yaml if not given")
    parser.add_argument("--seconds", type=float, default=1.0, help="for opening images; default 1")
    args = parser.parse_args()
    try:
        params = Params.load().section("data", DataParams)
        params = replace(params, source=args.source or params.source)
        for line in check_source(open_source(Path(params.source)), params, args.seconds):
            print(line, flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""`make doctor`: what is wrong with this machine or checkout, and the command that fixes it."""

import sys

# The other modules need Python 3.8. This file must parse on anything older, down to 2.7.
if sys.version_info < (3, 8):  # noqa: UP036  # it runs before anything is installed
    sys.exit(
        "wrong    python        "
        + sys.version.split()[0]
        + " is too old -> install Python 3.13, or uv (https://docs.astral.sh/uv/), whose "
        "`make setup` brings one"
    )

from pathlib import Path

from checkup.report import main

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))  # hydra_plugins.conf_files
sys.exit(main())

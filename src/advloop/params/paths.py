"""What the paths in params.yaml may be. DVC takes each as a dependency, before any stage runs.

The standard library alone: DVC's Hydra plugin imports it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# By parameter: whether it may be null.
PATHS = {
    "data.source": False,
    "data.text_encoder": True,
    "autoencoder.pretrained": True,
    "base.pretrained": True,
    "evaluate.feature_weights": True,
}
MADE = ("outputs", "reports")  # folders that a run writes
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path_problem(value: object, optional: bool) -> str | None:
    """Why DVC cannot take ``value`` for a file or folder that the run reads, or None if it can.

    Nothing is looked up on the disk; relative paths start in the current folder, the project's.
    """
    if value is None and optional:
        return None
    if value is None or isinstance(value, list | dict):
        return "must be the path of a file or a folder" + (", or null" if optional else "")
    if not isinstance(value, str):
        return "must be a path; a name that reads as a number or truth needs quotes, as in \"'5'\""
    if not value.strip():
        return "is empty; name a file or a folder" + (", or null for none" if optional else "")
    if ADDRESS.match(value):
        return "is an address; `dvc import-url` makes a file or folder of it here, to be named"
    place = Path(os.path.abspath(value))  # noqa: PTH100  # as DVC, which follows no link here
    for folder in (Path.cwd() / name for name in MADE):
        if folder == place or folder in place.parents:
            return f"is in {folder.name}/, which the run itself writes; copy it to another folder"
        if place in folder.parents:
            return f"holds {folder.name}/, which the run itself writes; name a folder of its own"
    return None

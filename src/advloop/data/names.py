"""Names of files as other systems write them: separators, blanks, letter case, forms of Unicode."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection

DRIVE = re.compile("[A-Za-z]:/")


def compose(name: str) -> str:
    """The name in Unicode's composed form (NFC); macOS used to write ``é`` as two characters."""
    return unicodedata.normalize("NFC", name)


def clean(name: str) -> str | None:
    """The name of an archive's member as a relative, composed POSIX path; "" for the root itself.

    None if it leads outside: absolute, with a drive letter, or with ``..``. A backslash separates
    folders, because archives made on Windows may use it, whatever the format says.
    """
    path = compose(name.replace("\\", "/"))
    parts = path.split("/")
    if path.startswith("/") or DRIVE.match(path) or ".." in parts:
        return None
    return "/".join(part for part in parts if part not in ("", "."))


def fold(name: str) -> str:
    """The name without what similar ones differ in: letter case, outer blanks, Unicode form."""
    return compose("/".join(part.strip() for part in compose(name).casefold().split("/")))


def resembling(name: str, files: Collection[str]) -> str | None:
    """The file that the writer of ``name`` may have meant, or None.

    It differs by separators, blanks, letter case, folders in front, or a few letters.
    """
    known = {fold(file): file for file in files}
    wanted = [part for part in fold(name.replace("\\", "/")).split("/") if part not in ("", ".")]
    for start in range(len(wanted)):
        if file := known.get("/".join(wanted[start:])):
            return file
    below = [file for key, file in known.items() if key.endswith("/" + "/".join(wanted))]
    if wanted and len(below) == 1:
        return below[0]
    close = difflib.get_close_matches("/".join(wanted), known, n=1, cutoff=0.8)
    return known[close[0]] if close else None

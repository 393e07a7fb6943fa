"""Which files outside the project belong to it all the same: those in DVC's cache."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

OBJECT = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}")  # of DVC 3, and of DVC 2


def in_cache(path: Path) -> bool:
    """Whether a resolved path is a file that DVC keeps, as a link under cache.type symlink names.

    What else stands in the cache's folder, which may be a shared disk, is none.
    """
    folder = _cache_folder()
    return (
        folder is not None
        and path.is_relative_to(folder)
        and OBJECT.fullmatch(path.relative_to(folder).as_posix()) is not None
    )


@cache
def _cache_folder() -> Path | None:
    """The cache of the project around the working folder; None outside of one, or without DVC."""
    try:
        from dvc.exceptions import DvcException  # a second, for the few who have such links
        from dvc.repo import Repo
    except ModuleNotFoundError:
        return None
    try:
        with Repo() as repo:
            return Path(repo.cache.local_cache_dir).resolve()
    except DvcException:
        return None

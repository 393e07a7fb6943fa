"""Read this workspace's objects on a remote, and name those that are missing or damaged there.

DVC checks which objects a remote has, but not their contents, and if it has a folder's list it
assumes that it has the folder's files. So `dvc push` and `dvc status --cloud` miss an object that
was damaged, or lost from a folder. --mend sends such objects again from this machine's cache.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

from dvc.repo import Repo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from advloop.core.errors import counted
from advloop.infra.output import print_safely


def digest(storage: Any, oid: str) -> str:
    """The MD5 of an object's bytes, which its name should be."""
    found = hashlib.md5()
    with storage.fs.open(storage.oid_to_path(oid), "rb") as stream:
        while data := stream.read(1 << 20):
            found.update(data)
    return found.hexdigest()


def fault(storage: Any, oid: str) -> str | None:
    """``missing``, ``damaged``, or None if the object is sound."""
    try:
        sound = digest(storage, oid) == oid.removesuffix(".dir")
    except FileNotFoundError:
        return "missing"
    return None if sound else "damaged"


def send(cache: Any, remote: Any, oid: str) -> None:
    """Replace the remote's copy by the cache's."""
    if remote.fs.exists(remote.oid_to_path(oid)):
        remote.delete(oid)
    remote.add(cache.oid_to_path(oid), cache.fs, oid, check_exists=False)


def check(repo: Repo, name: str | None, mend: bool) -> int:
    """Print a line for each fault, and return how many are left."""
    remote, cache = repo.cloud.get_remote_odb(name), repo.cache.local
    used = {
        obj.value: obj.obj_name
        for objs in repo.index.used_objs(remote=name).values()
        for obj in objs
    }
    left = 0
    for oid, path in sorted(used.items(), key=lambda item: item[1]):
        found = fault(remote, oid)
        if found is None:
            continue
        outcome = ""
        if mend and fault(cache, oid):
            outcome = ": this machine's cache has no sound copy either"
        elif mend:
            send(cache, remote, oid)
            outcome = ": mended"
        left += outcome != ": mended"
        print(f"{found}: {path} ({remote.oid_to_path(oid)}){outcome}")
    print(f"{counted(len(used), 'object')}, {left} missing or damaged")
    return left


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remote", help="its name; the default remote if not given")
    parser.add_argument("--mend", action="store_true", help="send the damaged and missing again")
    args = parser.parse_args()
    try:
        with Repo() as repo:
            left = check(repo, args.remote, args.mend)
    except Exception as error:  # each remote's plugin raises errors of its own
        sys.exit(f"error: {args.remote or 'default remote'}: {error}")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()

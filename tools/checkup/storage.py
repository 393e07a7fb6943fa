"""Checks of what DVC keeps: its remote, its cache, and the locks left by killed processes."""

from __future__ import annotations

import configparser
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from checkup.finding import Finding, ask, ok, read, warning, writable, wrong

SECONDS = 30  # a remote has to answer
FICLONE = 0x40049409  # the Linux ioctl that copies a file by sharing its blocks
PROBE = """
import os
os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")  # report a dead server soon
from dvc.repo import Repo
storage = Repo().cloud.get_remote_odb()
try:
    storage.fs.ls(storage.path)
except FileNotFoundError:
    pass  # the first push creates it
"""


def _config(root: Path) -> configparser.ConfigParser:
    """.dvc/config with .dvc/config.local over it."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    for name in ("config", "config.local"):
        parser.read_string(read(root / ".dvc" / name))
    return parser


def remote(root: Path) -> Finding:
    """The default remote answers, or if it is a folder, can be written."""
    try:
        config = _config(root)
    except configparser.Error as error:
        reason = str(error).splitlines()[0]
        return wrong(f".dvc/config cannot be read ({reason})", "git restore .dvc/config")
    name = config.get("core", "remote", fallback="")
    url = config.get(f"'remote \"{name}\"'", "url", fallback="")
    if not url:
        mend = "dvc remote add --default storage /PATH/TO/FOLDER"
        return warning("none is set, so `dvc push` has nowhere to go", mend)
    if "://" not in url:
        return _folder(name, Path(os.path.normpath(str(root / ".dvc" / url))))
    if not (root / ".venv/bin/python").exists():
        return warning(f"{name} ({url}) will be checked once DVC is installed", "make setup")
    answer = ask(root, str(root / ".venv/bin/python"), "-c", PROBE, seconds=SECONDS)
    if answer.status != 0:
        if "No module named 'dvc'" in answer.error:
            return warning(f"{name} ({url}) will be checked once DVC is installed", "make setup")
        mend = "see docs/remotes.md, and set it with `dvc remote modify`"
        return wrong(f"{name} ({url}) cannot be reached ({answer.reason})", mend)
    return ok(f"{name} ({url}) answers")


def _folder(name: str, folder: Path) -> Finding:
    mend = f"dvc remote modify --local {name} url /PATH/TO/FOLDER"
    if folder.is_dir():
        if writable(folder):
            return ok(f"{name} ({folder})")
        return wrong(f"{name} ({folder}) cannot be written", mend)
    above = next(place for place in folder.parents if place.exists())
    if above.is_dir() and writable(above):
        return ok(f"{name} ({folder}), which the first `dvc push` creates")
    return wrong(f"{name} ({folder}) does not exist and cannot be created", mend)


def _reflink(source: Path, target: Path) -> None:
    import fcntl

    with source.open("rb") as from_file, target.open("wb") as to_file:
        fcntl.ioctl(to_file.fileno(), FICLONE, from_file.fileno())


def _first_link(kinds: list[str], source: Path, target: Path) -> str:
    """The first kind that links a file of one folder into the other, or ''."""
    links: dict[str, Callable[[Path, Path], None]] = {
        "reflink": _reflink,
        "hardlink": os.link,
        "symlink": os.symlink,
    }
    with ExitStack() as both:
        here = both.enter_context(tempfile.TemporaryDirectory(dir=str(source)))
        there = both.enter_context(tempfile.TemporaryDirectory(dir=str(target), prefix=".doctor-"))
        linked = Path(here) / "object"
        linked.write_bytes(b"1")
        for kind in kinds:
            try:
                if kind in links:
                    links[kind](linked, Path(there) / kind)
                    return kind
            except OSError:
                continue
    return ""


def cache(root: Path) -> Finding:
    """How DVC puts outputs into its cache: a link takes no space, a copy takes it twice."""
    try:
        config = _config(root)
    except configparser.Error:
        return warning("not checked: .dvc/config cannot be read", "git restore .dvc/config")
    folder = root / ".dvc" / config.get("cache", "dir", fallback="cache")
    above = next(place for place in (folder, *folder.parents) if place.exists())
    kinds = config.get("cache", "type", fallback="reflink,copy").strip("\"'").split(",")
    try:
        kind = _first_link(kinds, above, root)
    except OSError as error:
        reason = f"{error.filename or above}: {error.strerror}"
        own = f"sudo chown --recursive $USER {root}"
        elsewhere = "dvc cache dir --local /A/FOLDER"
        mend = own if folder.resolve().is_relative_to(root.resolve()) else elsewhere
        return wrong(f"cannot be written ({reason})", mend)
    if closed := _closed_part(folder):
        mend = "see `Several users` in docs/machines.md"
        return wrong(f"{closed} is another user's and cannot be written", mend)
    if kind:
        return ok(f"{kind}s: outputs take no disk space twice")
    mend = "dvc cache dir --local /A/FOLDER/ON/THE/DISK/OF/THIS/PROJECT"
    return warning(f"copies: outputs take twice the disk ({folder} is on another one)", mend)


def _closed_part(folder: Path) -> Path | None:
    """A folder of the cache's objects that this user cannot add to, as in one that users share."""
    places = sorted((folder / "files/md5").glob("??"))
    return next((place for place in places if not os.access(place, os.W_OK)), None)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _held(lock: Path) -> bool:
    """Whether a living process holds this lock."""
    import fcntl

    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _blockers(rwlock: Path) -> dict[int, str]:
    """The living processes that DVC waits for, and their commands; ValueError if damaged."""
    if not (text := read(rwlock)):
        return {}
    content = json.loads(text)
    try:
        readers = [info for infos in content.get("read", {}).values() for info in infos]
        infos = [*content.get("write", {}).values(), *readers]
        return {int(info["pid"]): str(info["cmd"]) for info in infos if _alive(int(info["pid"]))}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None


def locks(root: Path) -> Finding:
    """No stale lock blocks DVC, and no stage is still writing."""
    index = root / ".git/index.lock"
    if index.exists() and time.time() - index.stat().st_mtime > 60:
        return wrong("a killed git left its lock", "rm .git/index.lock")
    rwlock = root / ".dvc/tmp/rwlock"
    try:
        blockers = _blockers(rwlock)
    except ValueError:
        return wrong(".dvc/tmp/rwlock is damaged", "rm .dvc/tmp/rwlock")
    for pid, command in blockers.items():
        running = read(Path(f"/proc/{pid}/cmdline"))
        if running and "dvc" not in running:
            text = f"DVC waits for {command} ({pid}), but that is another program now"
            return wrong(text, "rm .dvc/tmp/rwlock")
    held = [path for path in sorted((root / ".state/locks").glob("*")) if _held(path)]
    if held:
        holder = read(held[0])
        text = f"process {holder} is writing {held[0].name.replace('_', '/', 1)}"
        return warning(text, f"wait, or: kill {holder.partition(' ')[0]}")
    if blockers:
        pid, command = next(iter(blockers.items()))
        return warning(f"{command} ({pid}) is running", f"wait, or: kill {pid}")
    return ok("none held")

"""Checks of what a container may lack: a name, folders to write in, a locale, shared memory."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path

from checkup.finding import Finding, ask, gigabytes, ok, warning, writable, wrong

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python's getpass looks first
SITE_CACHE = "/var/tmp/dvc"  # DVC's index of each project, outside of it
SHARED = 5e8  # bytes of /dev/shm that are enough for NCCL
DEVICES, SHM = Path("/dev"), Path("/dev/shm")
SAMPLE = "± → …"  # what the stages print beside ASCII


def user(_root: Path) -> Finding:
    """Whoever runs this has a name, which DVC asks for at every command."""
    for variable in NAMES:
        if os.environ.get(variable):
            return ok(f"{os.environ[variable]} ({variable})")
    try:
        return ok(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        text = f"user id {os.getuid()} has no name here, and DVC stops at that (getpwuid)"
        return wrong(text, "export USER=me")


def folders(_root: Path) -> Finding:
    """There is a home, and DVC, git and uv can write where they keep what is no project's."""
    home = os.path.expanduser("~")  # noqa: PTH111  Path.home() raises where there is none
    if not home.startswith("/"):
        return wrong("there is no home folder (HOME is not set)", "export HOME=/A/FOLDER")
    place = Path(os.environ.get("DVC_SITE_CACHE_DIR") or SITE_CACHE)
    above = next(folder for folder in (place, *place.parents) if folder.exists())
    if not writable(above):
        mend = "export DVC_SITE_CACHE_DIR=/A/FOLDER"
        return wrong(f"DVC keeps its index in {place}, which cannot be written", mend)
    try:
        temporary = tempfile.gettempdir()
    except OSError:
        return wrong("no folder for temporary files can be written", "export TMPDIR=/A/FOLDER")
    if not (Path(home).is_dir() and writable(Path(home))):
        text = f"the home folder {home} cannot be written, where uv and git keep their own"
        return warning(text, "export HOME=/A/FOLDER")
    return ok(f"{home}, {place} and {temporary} can be written")


def identity(root: Path) -> Finding:
    """git knows who commits: `dvc exp run --temp` and `--queue` commit, too."""
    if not shutil.which("git"):
        return warning("not known without git", "sudo apt-get install git")
    missing = [
        key
        for key in ("name", "email")
        if not os.environ.get(f"GIT_COMMITTER_{key.upper()}")
        and ask(root, "git", "config", f"user.{key}").status != 0
    ]
    if missing:
        mend = "git config user.name YOU && git config user.email YOU@EXAMPLE.ORG"
        said = f"git has no user.{missing[0]}, which commits and `dvc exp run --temp` need"
        return warning(said, mend)
    return ok("git knows who commits")


def locale(_root: Path) -> Finding:
    """Everything that is printed can be."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        SAMPLE.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        text = f"{encoding} has no {SAMPLE}, which will be printed as escapes"
        return warning(text, "unset PYTHONIOENCODING; export PYTHONUTF8=1")
    return ok(encoding)


def shm(_root: Path) -> Finding:
    """Several GPUs exchange data through /dev/shm, which is small in a container."""
    cards = len(list(DEVICES.glob("nvidia[0-9]*")))
    size = shutil.disk_usage(str(SHM)).total if SHM.is_dir() else 0
    if cards > 1 and size < SHARED:
        text = f"{SHM} has {gigabytes(size)}, too little for {cards} GPUs to exchange data"
        return warning(text, "docker run --shm-size=1g, or export NCCL_SHM_DISABLE=1")
    return ok(f"{SHM} has {gigabytes(size)}")

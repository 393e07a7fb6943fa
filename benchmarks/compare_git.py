"""Commands of git and DVC in the project, and its experiments."""

from __future__ import annotations

import re
import subprocess

import compare_paths

from advloop.core.errors import UserError


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=compare_paths.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise UserError(f"`{' '.join(command)}`: {reason}")
    return done


def git(*args: str) -> str:
    return run("git", *args).stdout


def experiments() -> dict[str, tuple[str, int]]:
    """Commit and its Unix time of every experiment, by name; of equal names the newest."""
    listed = git(
        "for-each-ref",
        "--sort=committerdate",
        "--format=%(refname) %(objectname) %(committerdate:unix)",
        "refs/exps",
    )
    found = {}
    for line in listed.splitlines():
        ref, commit, seconds = line.split()
        # refs/exps/01/234abcd…/NAME; the others are the queue's own
        if match := re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)", ref):
            found[match[1]] = commit, int(seconds)
    return found

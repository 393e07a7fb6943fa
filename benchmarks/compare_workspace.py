"""The workspace: one comparison in it at a time, nothing uncommitted, and as it was."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import compare_paths

from advloop.core.errors import UserError
from compare_git import git, run
from compare_state import read_state, remember

LOCK = ".dvc/tmp/compare.lock"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    path = compare_paths.ROOT / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError("another `make compare` runs in this folder") from None
        yield


@contextmanager
def queueing() -> Iterator[None]:
    """Remember, while `dvc exp run --queue` runs, how it found the workspace."""
    branch = run("git", "symbolic-ref", "--quiet", "HEAD", check=False).stdout.strip()
    remember(queueing={"branch": branch, "stash": stash()})
    yield
    remember(queueing=None)


def restore_workspace() -> None:
    """Undo what `dvc exp run --queue` leaves if it is killed: it detaches HEAD and sets params."""
    before = read_state().get("queueing")
    if not before:
        return
    branch, commit = before["branch"], git("rev-parse", "HEAD")
    detached = run("git", "symbolic-ref", "--quiet", "HEAD", check=False).returncode != 0
    if detached and branch and git("rev-parse", branch) == commit:
        git("symbolic-ref", "HEAD", branch)
    git("reset", "--quiet")
    git("checkout", "--", "params.yaml", "dvc.lock")
    if stash() != before["stash"]:
        git("stash", "pop", "--quiet")  # changes of docs/ that DVC had put aside
    remember(queueing=None)


def stash() -> str:
    return run("git", "rev-parse", "--quiet", "--verify", "refs/stash", check=False).stdout.strip()


def check_clean() -> None:
    changed = git("diff", "HEAD", "--name-only", "--", ".", ":!docs").splitlines()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"uncommitted changes in {', '.join(changed[:3])}{more}: DVC would carry them into the "
            "experiments; commit them, or `git stash`, and `make compare` again"
        )

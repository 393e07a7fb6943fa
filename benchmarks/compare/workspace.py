"""The workspace: one comparison at a time, nothing uncommitted, and left as it was found."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import project
from advloop.core.errors import UserError
from project import git, read_state, remember, run

LOCK = ".dvc/tmp/compare.lock"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    path = project.ROOT / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError("another `make compare` runs in this folder") from None
        yield


def check_clean() -> None:
    """UserError if tracked files outside docs/ have changed."""
    changed = git("diff", "HEAD", "--name-only", "--", ".", ":!docs").splitlines()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"uncommitted changes in {', '.join(changed[:3])}{more}: DVC would carry them into the "
            "experiments; commit them, or `git stash`, and `make compare` again"
        )


@contextmanager
def queueing() -> Iterator[None]:
    """Remember what the workspace was like, until `dvc exp run --queue` has put it back."""
    branch = run("git", "symbolic-ref", "--quiet", "HEAD", check=False).stdout.strip()
    remember(queueing={"branch": branch, "stash": newest_stash()})
    yield
    remember(queueing=None)


def restore_workspace() -> None:
    """Undo what a killed `dvc exp run --queue` leaves: a detached HEAD and the cell's params."""
    before = read_state().get("queueing")
    if not before:
        return
    branch, commit = before["branch"], git("rev-parse", "HEAD")
    detached = run("git", "symbolic-ref", "--quiet", "HEAD", check=False).returncode != 0
    if detached and branch and git("rev-parse", branch) == commit:
        git("symbolic-ref", "HEAD", branch)
    git("reset", "--quiet")
    git("checkout", "--", "params.yaml", "dvc.lock")
    if newest_stash() != before["stash"]:
        git("stash", "pop", "--quiet")  # changes in docs/ that DVC had put aside
    remember(queueing=None)


def newest_stash() -> str:
    """Its commit, or "" if there is none."""
    return run("git", "rev-parse", "--quiet", "--verify", "refs/stash", check=False).stdout.strip()

"""Checks of the checked-out files: unfinished merges, line ends, links that DVC refuses."""

from __future__ import annotations

import os
from pathlib import Path

from checkup.finding import Finding, ask, ok, warning, wrong

MADE = ("dvc.lock", "params.yaml", "reports")  # what commands make again after a merge
MARKED = (*MADE, "dvc.yaml", "conf", ".dvc")
MARKS = "^(<<<<<<<|>>>>>>>) "
TO_LF = "git grep -Ilz $'\\r$' | xargs -0 sed -i 's/\\r$//'; git rm -rq --cached . && git reset -q"
ELSEWHERE = "dvc cache dir --local /BIG/DISK/cache && dvc config --local cache.type symlink"


def _names(root: Path, *command: str) -> list[str]:
    return [name for name in ask(root, "git", *command).out.split("\0") if name]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def merge(root: Path) -> Finding:
    """No merge is unfinished, and no file that DVC reads holds the marks of one."""
    unmerged = _names(root, "diff", "--name-only", "--diff-filter=U", "-z")
    made = [name for name in unmerged if name.split("/")[0] in MADE]
    if by_hand := [name for name in unmerged if name not in made]:
        text = f"both sides of a merge have changed {_listed(by_hand)}"
        return wrong(text, "edit them by hand, git add them, and `make doctor` again")
    if made:
        text = f"both sides of a merge have changed {_listed(made)}"
        ours = " ".join(sorted({name.split("/")[0] for name in made}))
        again = "make params && dvc repro && git add --all && git commit"
        return wrong(text, f"git checkout --ours {ours} && {again}")
    found = _names(root, "grep", "-lzE", MARKS, "--", *MARKED)
    if found:
        text = f"the marks of a merge stand in {_listed(found)}"
        mend = f"git restore --source=COMMIT_BEFORE_THE_MERGE {' '.join(found)}"
        return wrong(text, mend)
    return ok("none unfinished")


def lines(root: Path) -> Finding:
    """Lines end in LF alone, or every stage would count as changed."""
    entries = [entry.partition("\t") for entry in _names(root, "ls-files", "--eol", "-z")]
    ends = ("w/crlf", "w/mixed")
    found = [name for facts, _, name in entries if any(end in facts.split() for end in ends)]
    if found:
        text = f"end in CR LF in {_listed(found)}, so that DVC takes them for changed"
        return wrong(text, TO_LF)
    return ok("end in LF")


def links(root: Path) -> Finding:
    """No folder of outputs is a link out of the project, which DVC refuses to write through."""
    below = (Path(top) / name for top, names, _ in os.walk(str(root / "outputs")) for name in names)
    for place in (root / "outputs", *below):
        if place.is_symlink():
            name, target = place.relative_to(root).as_posix(), place.resolve()
            text = f"{name} is a link to {target}, and DVC writes nothing outside of the project"
            return wrong(text, f"rm {name} && {ELSEWHERE}; docs/machines.md")
    for name in ("conf", "src", "stages", "reports", "data"):
        if (root / name).is_symlink():
            text = f"{name} is a link, so that git takes its files for deleted"
            return warning(text, f"rm {name} && git restore {name}")
    return ok("none in the way")

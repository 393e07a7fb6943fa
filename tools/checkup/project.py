"""The checkout: packages against uv.lock, params.yaml against conf/, and dvc.lock."""

from __future__ import annotations

import re
from pathlib import Path

from checkup.finding import Finding, ask, ok, read, warning, wrong

NAMED = ("dvc", "torch", "diffusers")
REINSTALL = "rm -f .venv/.ready && make setup"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked(root: Path) -> tuple[dict[str, set[str]], set[str]]:
    """The versions of each package in uv.lock, and the packages that the project itself needs."""
    text = read(root / "uv.lock")
    versions: dict[str, set[str]] = {}
    asked: set[str] = set()
    for package in text.split("[[package]]\n")[1:]:
        found = re.match(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = \{ (\w+)', package)
        if found is None:
            continue
        name, version, source = found.groups()
        if source in ("virtual", "editable"):
            body = re.search(r"^dependencies = \[\n(.*?)^\]", package, re.S | re.M)
            asked |= set(re.findall(r'\{ name = "([^"]+)"', body.group(1) if body else ""))
        else:
            versions.setdefault(name, set()).add(version)
    return versions, asked


def _installed(root: Path) -> dict[str, str]:
    folders = (root / ".venv").glob("lib/python3.*/site-packages/*.dist-info")
    parts = [folder.name[: -len(".dist-info")].rpartition("-") for folder in folders]
    return {_plain(name): version.partition("+")[0] for name, _, version in parts}


def packages(root: Path) -> Finding:
    """The installed packages are those of uv.lock."""
    versions, asked = _locked(root)
    if not asked:
        return wrong("uv.lock is missing or not readable", "git restore uv.lock")
    if not (root / ".venv").exists():
        return warning("not installed yet", "make setup")
    has = _installed(root)
    missing = sorted(asked - set(has))
    other = [
        f"{name} is {has[name]}, not {' or '.join(sorted(versions[name]))}"
        for name in sorted(set(has) & set(versions))
        if has[name] not in versions[name]
    ]
    faults = [f"{name} is missing" for name in missing] + other
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        return wrong(", ".join(faults[:3]) + more, REINSTALL)
    named = ", ".join(f"{name} {has[name]}" for name in NAMED if name in has)
    return ok(f"{named}; all {len(set(has) & set(versions))} as in uv.lock")


CHECK = """
import sys
sys.path.insert(0, "stages")
import check_config
try:
    check_config.check(check_config.Params.load())
except check_config.UserError as error:
    sys.exit(f"found: {error}")
"""


def _values(root: Path) -> Finding | None:
    """What check_config finds wrong, or None; asked in .venv, where its packages are."""
    python = root / ".venv/bin/python"
    answer = ask(root, str(python), "-c", CHECK) if python.exists() else None
    if answer is None or answer.status == 0:
        return None
    found = answer.error.strip().rpartition("\n")[2]
    if not found.startswith("found: "):
        return warning(f"its values cannot be checked ({answer.reason})", REINSTALL)
    problem, _, mend = found[len("found: ") :].partition("; ")
    return wrong(problem.replace("params.yaml: ", "", 1), mend)


def params(root: Path) -> Finding:
    """params.yaml exists, was composed from the present conf/, and has values that a run takes."""
    from hydra_plugins.conf_files import conf_digest, strays  # where doctor.py finds it

    text = read(root / "params.yaml")
    if not text:
        return wrong("params.yaml is missing or empty", "make params")
    found = re.search(r"^  conf_digest: '?(\w+)", text, re.M)
    if found is None or found.group(1) != conf_digest(root / "conf"):
        return wrong("params.yaml is older than conf/", "make params")
    if extra := strays(root / "conf"):
        text = f"conf/{extra[0]} is not used: no defaults list of conf/ names it"
        return warning(text, f"rm conf/{extra[0]}")
    if bad := _values(root):
        return bad
    settings = [re.search(rf"^{key}: (\S+)", text, re.M) for key in ("scale", "num_iterations")]
    objective = re.search(r"^objective:\n  name: (\S+)", text, re.M)
    values = [found.group(1) if found else "?" for found in (*settings, objective)]
    return ok("scale={}, num_iterations={}, objective={}".format(*values))


def lock(root: Path) -> Finding:
    """dvc.lock is whole: DVC rewrites it after every stage, and its last byte is a newline."""
    path = root / "dvc.lock"
    if "\n<<<<<<< " in read(path):
        return wrong("holds the marks of a merge", "do what the line `merge` says")
    if path.exists() and not read(path).endswith("\n"):
        return wrong("DVC was killed while it wrote dvc.lock", "git restore dvc.lock && dvc repro")
    return ok("whole" if path.exists() else "none yet")

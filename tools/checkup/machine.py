"""Checks of the machine: Python, git, make, disk, GPU."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from checkup.finding import Finding, ask, gigabytes, ok, read, warning, wrong

OLDEST, NEWEST = (3, 11), (3, 13)  # requires-python of pyproject.toml
SETUP_BYTES = 5.5e9  # what `make setup` installs
VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
# Prints the name of the GPU after running a kernel on it, or fails with the reason as last line.
TORCH = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    seen = torch.cuda.is_available()
if seen:
    torch.ones(1, device="cuda").add(1).item()
    print(torch.cuda.get_device_name())
else:
    said = " ".join(str(w.message) for w in caught) or "CUDA of torch: %s" % torch.version.cuda
    raise SystemExit(" ".join(said.split()))
"""


def _fits(version: str) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return OLDEST <= numbers <= NEWEST


def python(root: Path) -> Finding:
    """A Python that fits the project, and before `make setup` something that can install it."""
    own = root / ".venv/bin/python"
    wanted = "Python {}.{} to {}.{}".format(*OLDEST, *NEWEST)
    if os.path.lexists(str(own)) or (root / ".venv").is_symlink():
        answer = ask(root, str(own), "-c", VERSION)
        if answer.status != 0:
            text = f".venv/bin/python does not start ({answer.reason})"
            return wrong(text, "rm -rf .venv && make setup")
        if not _fits(version := answer.out.strip()):
            return wrong(f".venv has {version}, not {wanted}", "rm -rf .venv && make setup")
        return ok(f"{version} in .venv")
    uv = shutil.which("uv") or (root / ".uv/bin/uv").exists()
    names = ["python3"] + [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    found = {name: ask(root, name, "-c", VERSION) for name in names if shutil.which(name)}
    versions = {name: a.out.strip() for name, a in found.items() if a.status == 0}
    fitting = [name for name, version in versions.items() if _fits(version)]
    if not fitting and uv:
        return warning(f"no {wanted} here; uv fetches one", "uv python install 3.13")
    if not fitting:
        has = f" (python3 is {versions['python3']})" if "python3" in versions else ""
        brings = "install Python 3.13, or uv, which brings one: https://docs.astral.sh/uv/"
        return wrong(f"no {wanted} here{has}", brings)
    if not uv and ask(root, "python3", "-c", "import venv, ensurepip").status != 0:
        return wrong("python3 cannot make environments", "sudo apt-get install python3-venv")
    return ok(f"{versions[fitting[0]]} ({fitting[0]})")


def running_experiment(root: Path) -> int:
    """The process of a `dvc exp run` in this folder, or 0."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            here = (folder / "cwd").samefile(root)
        except OSError:  # it has ended, or is another user's
            continue
        if here and re.search(r"\bdvc exp run\b", read(folder / "cmdline").replace("\0", " ")):
            return int(folder.name)
    return 0


def git(root: Path) -> Finding:
    """git is installed, and this folder is the top of a repository with a commit and a branch."""
    if not shutil.which("git"):
        return wrong("is not installed", "sudo apt-get install git")
    top = ask(root, "git", "rev-parse", "--show-toplevel")
    if "dubious ownership" in top.error:
        mend = f"git config --global --add safe.directory {root}"
        return wrong("the folder belongs to another user, so git refuses to use it", mend)
    if top.status != 0:
        mend = "git init && git add --all && git commit --message Start"
        return wrong("this folder is not a git repository, and DVC needs one", mend)
    if Path(top.out.strip()).resolve() != root.resolve():
        mend = f"git clone {root} SOMEWHERE_ELSE"
        return wrong(f"this folder lies in the repository {top.out.strip()}", mend)
    if ask(root, "git", "rev-parse", "--verify", "HEAD").status != 0:
        return wrong("has no commit yet", "git add --all && git commit --message Start")
    gone = ask(root, "git", "ls-files", "--deleted").out.split("\n")
    gone = [name for name in gone if name and not name.startswith("reports/")]  # DVC's to make
    if gone:
        more = f" and {len(gone) - 1} more" if gone[1:] else ""
        return wrong(f"gone from the checkout: {gone[0]}{more}", "git restore .")
    version = ask(root, "git", "--version").out.replace("git version", "").strip()
    if ask(root, "git", "symbolic-ref", "--quiet", "HEAD").status != 0:
        if pid := running_experiment(root):
            return ok(f"{version}; on no branch while `dvc exp run` ({pid}) works")
        branches = ask(root, "git", "branch", "--format=%(refname:short)").out.split("\n")
        names = [name for name in branches if name and " " not in name] or ["main"]
        home = "main" if "main" in names else names[0]
        text = "is on no branch, as after a killed `dvc exp run`"
        return warning(text, f"git switch {home}")
    return ok(version)


def make(_root: Path) -> Finding:
    if not shutil.which("make"):
        return wrong("is not installed", "sudo apt-get install make")
    return ok("found")


def _run_bytes(root: Path) -> int:
    """The size of the outputs in dvc.lock; equal outputs count once, as in DVC's cache."""
    sizes: dict[str, int] = {}
    digest, below_outs = "", False
    for line in read(root / "dvc.lock").splitlines():
        if re.match(r"    \w+:", line):
            below_outs = line.startswith("    outs:")
        elif found := re.match(r"      (md5|size): (\S+)", line):
            if found.group(1) == "md5":
                digest = found.group(2)
            elif below_outs:
                sizes[digest] = int(found.group(2))
    return sum(sizes.values())


def disk(root: Path) -> Finding:
    """Room for what is not installed yet, and for one run as large as the committed one."""
    free = shutil.disk_usage(str(root)).free
    missing = 0 if (root / ".venv").exists() else SETUP_BYTES
    run = _run_bytes(root)
    needed = missing + run
    what = f"a run writes {gigabytes(run)}"
    if missing:
        what = f"`make setup` installs {gigabytes(missing)}, {what}"
    text = f"{gigabytes(free)} free; {what}"
    mend = "dvc gc --all-branches --all-tags --all-experiments; docs/machines.md"
    if free < needed:
        return wrong(text, mend)
    if free < needed + 2 * run:
        return warning(text, mend)
    return ok(text)


def gpu(root: Path) -> Finding:
    """torch can use the GPU that the driver lists."""
    if (chosen := os.environ.get("ADVLOOP_DEVICE", "")).startswith("cpu"):
        return ok(f"not used: ADVLOOP_DEVICE={chosen}")
    torch = root / ".venv/bin/python"
    listed = ask(root, "nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if listed.status is None and not Path("/dev/nvidiactl").exists():
        return ok("none; the demo needs none")
    cards = [line for line in listed.out.splitlines() if line.strip()]
    if listed.status != 0 or not cards:
        said = (listed.out.strip().splitlines() or [listed.reason])[0]
        return wrong(f"its driver does not answer ({said})", "reboot, or reinstall NVIDIA's driver")
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return ok(f"hidden by CUDA_VISIBLE_DEVICES: {cards[0]}")
    if not torch.exists():
        return ok(f"{cards[0]}; `make setup` installs the torch to try it with")
    answer = ask(root, str(torch), "-c", TORCH, seconds=180)
    if answer.status != 0 and "No module named 'torch'" in answer.error:
        return ok(f"{cards[0]}; torch is not installed")
    if answer.status != 0:
        mend = "update NVIDIA's driver, or `export ADVLOOP_DEVICE=cpu` to work without it"
        return wrong(f"{cards[0]}, but torch cannot use it ({answer.reason})", mend)
    return ok(f"{len(cards)}: {cards[0]}")

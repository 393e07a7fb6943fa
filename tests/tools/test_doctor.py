"""Facts of `make doctor`: each broken situation is one line with the command that mends it."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import getpass
import io
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPO, command, commit, git, must, new_repository

from checkup import machine, project, report, storage, surroundings

DOCTOR = [REPO / "tools/doctor.py", *sorted((REPO / "tools/checkup").glob("*.py"))]
DOCTOR.append(REPO / "src/hydra_plugins/conf_files.py")
Usage = namedtuple("Usage", "total used free")  # what shutil.disk_usage returns


class Patient:
    """A small checkout in which all is well, with programs of its own on PATH."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.bin, self.patch = root / "project", root / "bin", patch
        patch.setenv("PATH", str(self.bin))
        for name in ("ADVLOOP_DEVICE", "CUDA_VISIBLE_DEVICES"):
            patch.delenv(name, raising=False)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        free = Usage(10**12, 0, 10**12)
        patch.setattr(shutil, "disk_usage", lambda _: free)
        patch.setattr(storage, "SECONDS", 0.5)

    def git(self, *args: str) -> None:
        subprocess.run(["git", *args], cwd=self.root, check=True, capture_output=True)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name: str, script: str) -> None:
        """A shell script on PATH, or with a slash in its name, in the checkout."""
        path = self.root / name if "/" in name else self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('sh', path=os.defpath)}\n{script}\n")
        path.chmod(0o755)

    def install(self, **versions: str) -> None:
        """A .venv with what uv.lock says, but for ``versions``; '' leaves a package out."""
        self.program(".venv/bin/python", "echo 3.12.1")
        locked, asked = project._locked(self.root)
        has = {name: sorted(locked[name])[0] for name in asked} | versions
        for name, version in has.items():
            folder = f"{name.replace('-', '_')}-{version}.dist-info"
            if version:
                (self.root / f".venv/lib/python3.12/site-packages/{folder}").mkdir(parents=True)

    def remove(self, name: str) -> None:
        path = self.bin / name if (self.bin / name).exists() else self.root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def remote(self, url: str) -> None:
        self.write(".dvc/config.local", f"['remote \"storage\"']\n    url = {url}\n")

    def line(self, check: str) -> str:
        return report.line(check, report.checked(report.CHECKS[check], self.root))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "bin").mkdir()
    for name in ("git", "make", "sh", "sleep"):
        found = shutil.which(name)
        assert found, name
        (folder / "bin" / name).symlink_to(found)
    project = folder / "project"
    (project / ".dvc").mkdir(parents=True)
    for name in ("uv.lock", "dvc.lock", "params.yaml", ".dvc/config"):
        shutil.copyfile(REPO / name, project / name)
    shutil.copytree(REPO / "conf", project / "conf")
    new_repository(project)
    commit(project, "Start")
    with pytest.MonkeyPatch.context() as patch:
        Patient(folder, patch).install()
    return folder


@pytest.fixture
def patient(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    shutil.copytree(healthy, tmp_path / "patient", symlinks=True)
    return Patient(tmp_path / "patient", monkeypatch)


class Case(NamedTuple):
    name: str
    check: str
    harm: Callable[[Patient], object]
    level: str
    says: tuple[str, ...]
    mend: str


GPU = "echo 'Some GPU, 535.1'"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040)"
OTHER_DISK = OSError(18, "Invalid cross-device link")


def no_link(*_: object) -> None:
    raise OTHER_DISK


def reinstalled(**versions: str) -> Callable[[Patient], object]:
    def harm(p: Patient) -> None:
        p.remove(".venv")
        p.install(**versions)

    return harm


def bare(p: Patient, python: str = "3.12.1", status: int = 0) -> None:
    """Nothing installed; python3 has this version, and ends other questions with a status."""
    p.remove(".venv")
    p.program("python3", f'case "$2" in *version_info*) echo {python};; *) exit {status};; esac')


def locked_rwlock(p: Patient, pid: int) -> None:
    infos = {"write": {"outputs/data": {"pid": pid, "cmd": "dvc repro"}}, "read": {}}
    p.write(".dvc/tmp/rwlock", json.dumps(infos))


def nameless(p: Patient, **variables: str) -> None:
    """A user id that no passwd file lists, as in many containers."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    p.patch.setattr(pwd, "getpwuid", unknown)
    for name in (*surroundings.NAMES, "HOME"):
        p.patch.delenv(name, raising=False)
    for name, value in variables.items():
        p.patch.setenv(name, value)


def printing(p: Patient, encoding: str) -> None:
    p.patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))


def two_gpus(p: Patient, shared: float) -> None:
    p.write("dev/nvidia0", "")
    p.write("dev/nvidia1", "")
    p.patch.setattr(surroundings, "DEVICES", p.root / "dev")
    p.patch.setattr(shutil, "disk_usage", lambda _: Usage(shared, 0, 0))


def two_sides(p: Patient, *names: str) -> None:
    """A merge of two branches that changed the same lines of these files."""
    for branch in ("theirs", "main"):
        p.git("switch", "--quiet", *(["--create"] if branch == "theirs" else []), branch)
        for name in names:
            p.write(name, f"# {branch}\n")
        p.git("add", *names)
        p.git("commit", "--quiet", "--message", branch)
    with contextlib.suppress(subprocess.CalledProcessError):
        p.git("merge", "theirs")


def link(p: Patient, name: str) -> None:
    """In place of this folder, a link to one on another disk."""
    path, target = p.root / name, p.root.parent / "big"
    if path.is_dir():
        path.rename(target)
    else:
        target.mkdir()
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)


MARKED = "stages:\n<<<<<<< HEAD\n  a: 1\n=======\n  a: 2\n>>>>>>> other\n"
CASES = [
    Case("old", "python", lambda p: p.program(".venv/bin/python", "echo 3.10.4"), "wrong",
         ("3.10.4", "Python 3.11 to 3.13"), "rm -rf .venv && make setup"),
    Case("new", "python", lambda p: p.program(".venv/bin/python", "echo 3.14.0"), "wrong",
         ("3.14.0",), "rm -rf .venv && make setup"),
    Case("dangling", "python", lambda p: p.remove(".venv/bin/python") or (
         p.root / ".venv/bin/python").symlink_to("/no/python"), "wrong",
         ("does not start", "No such file"), "rm -rf .venv && make setup"),
    Case("none that fits", "python", lambda p: bare(p, "3.9.2"), "wrong",
         ("no Python 3.11 to 3.13", "python3 is 3.9.2"), "install Python 3.13, or uv"),
    Case("uv fetches one", "python", lambda p: bare(p, "3.9.2") or p.program("uv", ""), "warning",
         ("no Python 3.11 to 3.13", "uv fetches one"), "uv python install 3.13"),
    Case("without venv", "python", lambda p: bare(p, status=1), "wrong",
         ("cannot make environments",), "sudo apt-get install python3-venv"),
    Case("missing", "git", lambda p: p.remove("git"), "wrong",
         ("is not installed",), "sudo apt-get install git"),
    Case("an archive, no clone", "git", lambda p: p.remove(".git"), "wrong",
         ("not a git repository",), "git init && git add --all && git commit --message Start"),
    Case("another user's", "git", lambda p: p.program("git",
         "echo 'fatal: detected dubious ownership in repository' >&2; exit 128"), "wrong",
         ("another user",), "git config --global --add safe.directory "),
    Case("inside another", "git", lambda p: p.remove(".git") or subprocess.run(
         ["git", "init", "--quiet", str(p.root.parent)], check=True), "wrong",
         ("lies in the repository",), "git clone"),
    Case("no commit", "git", lambda p: p.git("update-ref", "-d", "HEAD"), "wrong",
         ("no commit yet",), "git add --all && git commit --message Start"),
    Case("lost files", "git", lambda p: p.remove("uv.lock"), "wrong",
         ("gone from the checkout: uv.lock",), "git restore ."),
    Case("no branch", "git", lambda p: p.git("switch", "--quiet", "--detach"), "warning",
         ("is on no branch",), "git switch main"),
    Case("without a name", "user", nameless, "wrong",
         ("has no name here", "getpwuid"), "export USER=me"),
    Case("no home", "folders", nameless, "wrong", ("no home folder",), "export HOME=/A/FOLDER"),
    Case("read-only home", "folders", lambda p: p.patch.setenv("HOME", "/proc"), "warning",
         ("the home folder /proc cannot be written",), "export HOME=/A/FOLDER"),
    Case("home that is not there", "folders", lambda p: p.patch.setenv("HOME", "/proc/no"),
         "warning", ("the home folder /proc/no cannot be written",), "export HOME=/A/FOLDER"),
    Case("read-only /var", "folders", lambda p: p.patch.setattr(surroundings, "SITE_CACHE",
         "/proc/dvc"), "wrong", ("DVC keeps its index in /proc/dvc, which",),
         "export DVC_SITE_CACHE_DIR=/A/FOLDER"),
    Case("nameless committer", "identity", lambda p: p.git("config", "--unset", "user.name"),
         "warning", ("git has no user.name", "--temp"), "git config user.name YOU && git config"),
    Case("committer without an address", "identity", lambda p: p.git(
         "config", "--unset", "user.email"), "warning", ("git has no user.email",), "user.email"),
    Case("ascii", "locale", lambda p: printing(p, "ascii"), "warning",
         ("ascii has no ±",), "export PYTHONUTF8=1"),
    Case("cp1252", "locale", lambda p: printing(p, "cp1252"), "warning",
         ("cp1252 has no ±",), "export PYTHONUTF8=1"),
    Case("small", "shm", lambda p: two_gpus(p, 64e6), "warning",
         ("has 0.1 GB, too little for 2 GPUs",), "docker run --shm-size=1g"),
    Case("of what is made", "merge", lambda p: two_sides(p, "dvc.lock", "reports/metrics.json"),
         "wrong", ("have changed dvc.lock, reports/metrics.json",),
         "git checkout --ours dvc.lock reports && make params && dvc repro && git add --all"),
    Case("of a source", "merge", lambda p: two_sides(p, "dvc.lock", "conf/config.yaml"), "wrong",
         ("have changed conf/config.yaml",), "by hand"),
    Case("marks", "merge", lambda p: p.write("dvc.lock", MARKED), "wrong",
         ("marks of a merge stand in dvc.lock",), "git restore --source="),
    Case("marks", "dvc.lock", lambda p: p.write("dvc.lock", MARKED), "wrong",
         ("marks of a merge",), "`merge`"),
    Case("of Windows", "lines", lambda p: p.write("conf/config.yaml", "a: 1\r\nb: 2\r\n"),
         "wrong", ("CR LF in conf/config.yaml",), "sed -i"),
    Case("of two kinds", "lines", lambda p: p.write("params.yaml", "a: 1\r\nb: 2\n"), "wrong",
         ("CR LF in params.yaml",), "sed -i"),
    Case("outputs", "links", lambda p: link(p, "outputs"), "wrong",
         ("outputs is a link to ", "/big, and DVC"), "rm outputs && dvc cache dir --local"),
    Case("a folder of outputs", "links", lambda p: p.write("outputs/a/b", "") and link(
         p, "outputs/a/rounds"), "wrong", ("outputs/a/rounds is a link",), "rm outputs/a/rounds"),
    Case("conf", "links", lambda p: link(p, "conf"), "warning", ("conf is a link",),
         "rm conf && git restore conf"),
    Case("missing", "make", lambda p: p.remove("make"), "wrong",
         ("is not installed",), "sudo apt-get install make"),
    Case("full", "disk", lambda p: p.patch.setattr(
         shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**8)), "wrong",
         ("0.1 GB free", "a run writes 0."), "dvc gc --all-branches --all-tags --all-experiments"),
    Case("too full to install", "disk", lambda p: p.remove(".venv") or p.patch.setattr(
         shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 5 * 10**9)), "wrong",
         ("5.0 GB free", "`make setup` installs 5.5 GB"), "dvc gc --all-branches"),
    Case("room for few", "disk", lambda p: p.patch.setattr(
         shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 2 * machine._run_bytes(p.root))),
         "warning", ("GB free",), "dvc gc --all-branches"),
    Case("not installed", "packages", lambda p: p.remove(".venv"), "warning",
         ("not installed yet",), "make setup"),
    Case("one missing", "packages", reinstalled(dvc=""), "wrong",
         ("dvc is missing",), "rm -f .venv/.ready && make setup"),
    Case("another version", "packages", reinstalled(torch="2.0.0"), "wrong",
         ("torch is 2.0.0, not 2.13.0",), "rm -f .venv/.ready && make setup"),
    Case("no lock", "packages", lambda p: p.remove("uv.lock"), "wrong",
         ("uv.lock is missing",), "git restore uv.lock"),
    Case("missing", "params.yaml", lambda p: p.remove("params.yaml"), "wrong",
         ("is missing",), "make params"),
    Case("stale", "params.yaml", lambda p: p.write("conf/config.yaml", "seed: 3\n"), "wrong",
         ("older than conf/",), "make params"),
    Case("stray", "params.yaml", lambda p: p.write("conf/params.yaml", "a: 1\n"), "warning",
         ("conf/params.yaml is not used",), "rm conf/params.yaml"),
    Case("of a bad value", "params.yaml", lambda p: p.program(".venv/bin/python",
         "echo old >&2; echo 'found: params.yaml: seed=-4 must be at least 0; set it' >&2; exit 1"
         ), "wrong", ("seed=-4 must be at least 0",), "set it"),
    Case("not to be checked", "params.yaml", lambda p: p.program(".venv/bin/python",
         "echo 'No module named omegaconf' >&2; exit 1"), "warning",
         ("its values cannot be checked (No module named omegaconf)",), "make setup"),
    Case("emptied", "dvc.lock", lambda p: p.write("dvc.lock", ""), "wrong",
         ("DVC was killed while it wrote",), "git restore dvc.lock && dvc repro"),
    Case("cut short", "dvc.lock", lambda p: p.write("dvc.lock", "schema: '2.0'\nstages:\n  pre"),
         "wrong", ("DVC was killed while it wrote",), "git restore dvc.lock && dvc repro"),
    Case("none", "remote", lambda p: p.write(".dvc/config", "[core]\n"), "warning",
         ("none is set",), "dvc remote add --default storage"),
    Case("no folder", "remote", lambda p: p.remote("../params.yaml/storage"), "wrong",
         ("cannot be created",), "dvc remote modify --local storage url"),
    Case("read only", "remote", lambda p: p.remote("/proc/self"), "wrong",
         ("/proc/", "cannot be written"), "dvc remote modify --local storage url"),
    Case("broken file", "remote", lambda p: p.write(".dvc/config", "[core\n"), "wrong",
         (".dvc/config cannot be read",), "git restore .dvc/config"),
    Case("silent", "remote", lambda p: p.remote("s3://bucket/x") or p.program(
         ".venv/bin/python", "exec sleep 9"), "wrong",
         ("storage (s3://bucket/x) cannot be reached (no answer in 0.5 s)",), "docs/remotes.md"),
    Case("refusing", "remote", lambda p: p.remote("s3://bucket/x") or p.program(
         ".venv/bin/python", "echo PermissionError: Forbidden >&2; exit 1"), "wrong",
         ("cannot be reached (PermissionError: Forbidden)",), "docs/remotes.md"),
    Case("nothing to ask with", "remote", lambda p: p.remote("s3://bucket/x") or p.remove(".venv"),
         "warning", ("will be checked once DVC is installed",), "make setup"),
    Case("on another disk", "cache", lambda p: [p.patch.setattr(storage, "_reflink", no_link),
         p.patch.setattr(os, "link", no_link)], "warning",
         ("copies: outputs take twice the disk",), "dvc cache dir --local"),
    Case("unwritable", "cache", lambda p: p.write(".dvc/config", "[cache]\n  dir = /proc/self\n"),
         "wrong", ("cannot be written",), "dvc cache dir --local"),
    Case("another user's part", "cache", lambda p: p.write(".dvc/cache/files/md5/0f/a", "")
         and p.patch.setattr(os, "access", lambda path, _: path.name != "0f"), "wrong",
         ("cache/files/md5/0f is another user's",), "docs/machines.md"),
    Case("git was killed", "locks", lambda p: os.utime(p.write(".git/index.lock", ""), (0, 0)),
         "wrong", ("a killed git left its lock",), "rm .git/index.lock"),
    Case("damaged", "locks", lambda p: p.write(".dvc/tmp/rwlock", '{"write": {'), "wrong",
         (".dvc/tmp/rwlock is damaged",), "rm .dvc/tmp/rwlock"),
    Case("foreign", "locks", lambda p: p.write(".dvc/tmp/rwlock", '{"write": [1]}'), "wrong",
         (".dvc/tmp/rwlock is damaged",), "rm .dvc/tmp/rwlock"),
    Case("dead driver", "gpu", lambda p: p.program("nvidia-smi",
         "echo NVIDIA-SMI has failed because it could not talk to the driver; exit 9"), "wrong",
         ("its driver does not answer (NVIDIA-SMI has failed",), "reinstall NVIDIA's driver"),
    Case("old driver", "gpu", lambda p: p.program("nvidia-smi", GPU) or p.program(
         ".venv/bin/python", f"echo '{OLD_DRIVER}' >&2; exit 1"), "wrong",
         ("Some GPU", f"torch cannot use it ({OLD_DRIVER})"), "update NVIDIA's driver"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}: {case.name}")
def test_broken_situation_is_one_line_with_what_mends_it(patient: Patient, case: Case) -> None:
    case.harm(patient)
    line = patient.line(case.check)
    assert "\n" not in line
    assert "Traceback" not in line
    found = re.match(rf"{case.level} +{re.escape(case.check)} +(.*) -> (.*)", line)
    assert found, line
    assert all(word in found[1] for word in case.says), line
    assert case.mend in found[2]


def test_remedy_of_windows_line_ends_keeps_edits_and_new_files(patient: Patient) -> None:
    shutil.copyfile(REPO / ".gitattributes", patient.root / ".gitattributes")
    patient.write("name with a blank.yaml", "a: 1\n")
    commit(patient.root, "Attributes")
    for name in ("conf/config.yaml", "name with a blank.yaml", "uv.lock"):
        path = patient.root / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with (patient.root / "params.yaml").open("a") as file:
        file.write("# mine\n")
    patient.write("new.csv", "1\r\n")
    line = patient.line("lines")
    assert "conf/config.yaml, name with a blank.yaml, uv.lock" in line
    patient.patch.setenv("PATH", os.defpath)
    must(command(patient.root, "bash", "-c", line.partition(" -> ")[2]))
    assert patient.line("lines").startswith("ok ")
    assert git(patient.root, "status", "--porcelain") == " M params.yaml\n?? new.csv\n"


def test_nameless_user_with_the_remedy_has_a_name_and_folders(
    patient: Patient, tmp_path: Path
) -> None:
    nameless(patient, USER="me", HOME=str(tmp_path))
    assert patient.line("user") == "ok       user          me (USER)"
    assert patient.line("folders").startswith(f"ok       folders       {tmp_path}, ")
    assert getpass.getuser() == "me"  # as DVC asks


@pytest.mark.parametrize(
    ("old", "new", "says", "mend"),
    [
        ("\nseed: 0", "\nseed: -4", "seed=-4 must be at least 0", "`dvc exp run -S seed=…`"),
        ("  epochs: 32", "  epochz: 32", "base.epochz is not a parameter", "did you mean"),
        ("source: data", "source: null #", "data.source=null must be of type str", "conf/"),
    ],
)
def test_bad_value_in_params_yaml_is_named_by_the_installed_project(
    patient: Patient, old: str, new: str, says: str, mend: str
) -> None:
    patient.program(".venv/bin/python", f'exec {sys.executable} "$@"')
    for name in ("src", "stages"):
        (patient.root / name).symlink_to(REPO / name)
    text = (patient.root / "params.yaml").read_text()
    assert old in text
    patient.write("params.yaml", text.replace(old, new, 1))
    line = patient.line("params.yaml")
    assert line.startswith("wrong")
    found, _, remedy = line.partition(" -> ")
    assert says in found
    assert mend in remedy


def test_checkout_where_all_is_well_passes(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(patient.root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"0 wrong, 0 warnings, {len(report.CHECKS)} ok"
    assert [line.split()[1] for line in lines[:-1]] == list(report.CHECKS)
    assert not [name for name in patient.root.iterdir() if name.name.startswith(".doctor")]


def test_clone_that_is_not_installed_is_warned_and_sent_to_make_setup(patient: Patient) -> None:
    bare(patient)
    assert report.main(patient.root) == 0
    assert patient.line("packages") == "warning  packages      not installed yet -> make setup"


def test_empty_folder_is_wrong_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(tmp_path) >= 3
    assert "a bug of doctor" not in capsys.readouterr().out


def test_check_that_fails_itself_is_a_line(patient: Patient) -> None:
    def broken(_: Path) -> report.Finding:
        raise RuntimeError("two\nlines")

    finding = report.checked(broken, patient.root)
    assert finding.level == "warning"
    assert "RuntimeError: two lines" in finding.text


def test_remote_that_answers_and_a_gpu_that_computes_are_well(patient: Patient) -> None:
    patient.remote("s3://bucket/x")
    patient.program("nvidia-smi", GPU)
    assert patient.line("remote") == "ok       remote        storage (s3://bucket/x) answers"
    assert patient.line("gpu") == "ok       gpu           1: Some GPU, 535.1"


@pytest.mark.parametrize(
    ("name", "value"), [("ADVLOOP_DEVICE", "cpu"), ("CUDA_VISIBLE_DEVICES", "")]
)
def test_gpu_that_nobody_wants_is_not_asked(patient: Patient, name: str, value: str) -> None:
    patient.program("nvidia-smi", GPU)
    patient.program(".venv/bin/python", "exit 1")
    patient.patch.setenv(name, value)
    assert patient.line("gpu").startswith("ok ")


def test_git_on_no_branch_is_well_while_an_experiment_runs(patient: Patient) -> None:
    patient.git("switch", "--quiet", "--detach")
    sleep = shutil.which("sleep")
    with subprocess.Popen(["dvc exp run", "60"], executable=sleep, cwd=patient.root) as process:
        while not (line := patient.line("git")).endswith(f"`dvc exp run` ({process.pid}) works"):
            assert process.poll() is None, line
        process.kill()
    assert line.startswith("ok ")
    assert patient.line("git").startswith("warning ")


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that is not DVC's."""
    process = subprocess.Popen(["sleep", "60"])
    while b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.wait()


def test_lock_of_a_number_that_another_program_has_now_is_wrong(
    patient: Patient, sleeper: int
) -> None:
    locked_rwlock(patient, sleeper)
    line = patient.line("locks")
    assert line.startswith("wrong")
    assert f"dvc repro ({sleeper}), but that is another program now -> rm .dvc/tmp/rwlock" in line


def test_lock_of_a_process_that_is_gone_is_no_fault(patient: Patient) -> None:
    done = subprocess.Popen(["sleep", "0"])
    done.wait()
    locked_rwlock(patient, done.pid)
    assert patient.line("locks").startswith("ok ")


def test_stage_that_still_writes_is_named(patient: Patient) -> None:
    lock = patient.write(".state/locks/outputs_config.ok", "123 (generate, since today)")
    assert patient.line("locks").startswith("ok ")
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        line = patient.line("locks")
    assert line.startswith("warning")
    assert "process 123 (generate, since today) is writing outputs/config.ok" in line
    assert line.endswith("-> wait, or: kill 123")


def test_run_is_as_large_as_the_outputs_of_the_lock(patient: Patient) -> None:
    patient.write(
        "dvc.lock",
        "stages:\n  a:\n    deps:\n    - path: x\n      md5: d\n      size: 7\n"
        "    outs:\n    - path: y\n      hash: md5\n      md5: e\n      size: 30\n"
        "    - path: z\n      md5: e\n      size: 30\n"
        "  b:\n    outs:\n    - path: w\n      md5: f\n      size: 12\n",
    )
    assert machine._run_bytes(patient.root) == 42
    assert machine._run_bytes(REPO) > 10**8


def test_versions_of_python_are_those_of_pyproject() -> None:
    asked = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["requires-python"]
    (low, high), (_, above) = machine.OLDEST, machine.NEWEST
    assert asked == f">={low}.{high},<{low}.{above + 1}"


@pytest.mark.parametrize("path", DOCTOR, ids=lambda path: path.name)
def test_doctor_is_python_3_8_and_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert (
                top in {"checkup", "hydra_plugins", "__future__"} or top in sys.stdlib_module_names
            ), name


def make_doctor(project: Path) -> subprocess.CompletedProcess[str]:
    """With the programs in ``bin`` alone on PATH."""
    return subprocess.run(
        [str(shutil.which("make")), "doctor"],
        cwd=project,
        env={"PATH": str(project / "bin")},
        capture_output=True,
        text=True,
    )


def test_make_doctor_runs_without_any_installed_package(tmp_path: Path) -> None:
    for name in ("tools", "src/hydra_plugins", "conf"):
        shutil.copytree(REPO / name, tmp_path / name)
    shutil.copyfile(REPO / "params.yaml", tmp_path / "params.yaml")
    shutil.copyfile(REPO / "Makefile", tmp_path / "Makefile")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python3"
    done = make_doctor(tmp_path)
    assert done.returncode > 0
    (line,) = done.stdout.splitlines()
    assert re.match("wrong +python +is not installed -> install Python 3.13, or uv", line)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -E -s -S "$@"\n')
    python.chmod(0o755)
    done = make_doctor(tmp_path)
    assert done.returncode > 0
    assert "Traceback" not in done.stderr
    assert re.search("^ok +params.yaml +scale=demo", done.stdout, re.M)
    assert len(done.stdout.splitlines()) == len(report.CHECKS) + 1

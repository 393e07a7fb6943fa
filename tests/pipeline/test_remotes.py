"""Remotes on real servers, which the tests start on loopback.

DVC's failures are shown on a folder of latents, and the commands of docs/remotes.md on a whole run
of fake stages.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import pytest
from conftest import (
    BIN,
    REPO,
    Finished,
    command,
    commit,
    copy_of,
    dvc,
    environment,
    git,
    must,
    new_repository,
    snapshot,
)
from servers import Gate

from checkup import storage

PAGE = (REPO / "README.md").read_text() + (REPO / "docs/remotes.md").read_text()
FILES, FILE_SIZE = 12, 1_000_000
HALF = FILES * FILE_SIZE // 2
CHECK = str(REPO / "tools/check_remote.py")
# One worker for each server.
S3 = pytest.param("s3", marks=pytest.mark.xdist_group("s3"))
SSH = pytest.param("ssh", marks=pytest.mark.xdist_group("ssh"))


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Only the tests' keys, no proxy, and no address but loopback."""
    with pytest.MonkeyPatch.context() as patch:
        found = (kind for kind in ("s3", "ssh") if find_spec(f"dvc_{kind}"))
        patch.setattr(conftest, "WARM", ("dvc", *found))
        for name in os.environ:
            if name.startswith("AWS_") or name == "SSH_AUTH_SOCK":
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # what docs/remotes.md advises for failing soon
        yield


@pytest.fixture(scope="module", params=[S3, SSH])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("server") / "server"
    if request.param == "s3":
        pytest.importorskip("dvc_s3", reason="dvc-s3 is missing: `make setup` installs it")
        import seaweed

        if not seaweed.WEED:
            pytest.skip("SeaweedFS is missing: `make setup` installs it where it has a wheel")
        started: Any = seaweed.SeaweedFS(folder)
        started.start()
    else:
        pytest.importorskip("dvc_ssh", reason="dvc-ssh is missing: `make setup` installs it")
        import sshd

        started = sshd.start_ssh(folder)
    yield started
    started.kill()


@pytest.fixture
def gate(server: Any) -> Iterator[Gate]:
    relay = Gate(server.port)
    with relay.open():
        yield relay


@pytest.fixture(scope="module")
def finished_latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the project's DVC configuration and a folder of latents."""
    project = tmp_path_factory.mktemp("latents") / "project"
    (project / ".dvc").mkdir(parents=True)
    shutil.copyfile(REPO / ".dvc/config", project / ".dvc/config")
    new_repository(project)
    (project / "latents").mkdir()
    stream = np.random.default_rng(0)
    for k in range(FILES):
        (project / f"latents/{k}.pt").write_bytes(stream.bytes(FILE_SIZE))
    must(dvc(project, "add", "--quiet", "latents"))
    (project / ".gitignore").write_text("/latents\n")
    commit(project, "Latents")
    return project


@pytest.fixture
def latents(finished_latents: Path, tmp_path: Path) -> Path:
    return copy_of(finished_latents, tmp_path / "latents")


def point(project: Path, *options: dict[str, Any]):
    """Set these options of the remote, in the file that git ignores."""
    lines = [f"    {name} = {value}" for each in options for name, value in each.items()]
    text = "\n".join(["['remote \"storage\"']", *lines, ""])
    (project / ".dvc/config.local").write_text(text)


def wipe(project: Path, *outputs: str):
    for name in (".dvc/cache", *outputs):
        shutil.rmtree(project / name)


def seed(server: Any, project: Path, below: str):
    """Put on the server what a push would."""
    for name, data in snapshot(project / ".dvc/cache").items():
        server.write(f"{below}/{name}", data)


def object_of(project: Path, name: str) -> str:
    """Where caches and remotes keep a file of latents/, or for `.dir` the folder's list."""
    if name == ".dir":
        oid = re.findall(r"[0-9a-f]{32}\.dir", (project / "latents.dvc").read_text())[0]
    else:
        oid = hashlib.md5((project / "latents" / name).read_bytes()).hexdigest()
    return f"files/md5/{oid[:2]}/{oid[2:]}"


def sound(objects: dict[str, bytes]) -> int:
    """The number of objects, after comparing the contents of each with its name."""
    for name, data in objects.items():
        named = name.removeprefix("files/md5/").removesuffix(".dir").replace("/", "")
        assert named == hashlib.md5(data).hexdigest(), name
    return len(objects)


def failure(done: subprocess.CompletedProcess[str], *words: str):
    """The command failed and said why, without a traceback."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    for word in words:
        assert word in done.stdout, done.stdout


def block(first_line: str) -> str:
    """The commands in README or docs/remotes.md below a comment with this beginning."""
    found = re.search(rf"```bash\n(# {re.escape(first_line)}.*?)```", PAGE, re.S)
    assert found, first_line
    return found[1]


def shell(project: Path, commands: str):
    must(command(project, "bash", "-euc", commands))


# --- A whole run, with README's commands ---


@pytest.fixture(scope="module")
def travelled(
    server: Any, finished_round: Finished, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A finished run that was pushed to the remote of those commands, and the server."""
    project = copy_of(finished_round.project, tmp_path_factory.mktemp("travelled") / "fakes")
    title = "S3" if "s3" in server.options(server.port, "run")[0]["url"] else "SSH"
    shell(project, server.filled(block(title), server.port, "run"))
    must(dvc(project, "push"))
    commit(project, "Remote")
    return project, server


def test_wiped_run_comes_back_from_the_server_and_is_up_to_date(travelled: tuple[Path, Any]):
    project, server = travelled
    before = snapshot(project / "outputs")
    assert sound(server.objects("run")) > 30
    wipe(project, "outputs")
    must(dvc(project, "pull"))
    assert snapshot(project / "outputs") == before
    assert "up to date" in must(dvc(project, "status")).stdout
    assert git(project, "status", "--porcelain") == ""


def test_keys_reach_neither_the_shared_configuration_nor_git(travelled: tuple[Path, Any]):
    project, server = travelled
    shown, secret = server.options(server.port, "run")
    history = git(project, "log", "--all", "--patch")
    local = (project / ".dvc/config.local").read_text()
    assert all(str(value) in history for value in shown.values())
    for value in map(str, secret.values()):
        assert value in local
        assert value not in history
        assert value not in (project / ".dvc/config").read_text()
    assert git(project, "check-ignore", ".dvc/config.local").strip() == ".dvc/config.local"


def test_page_sets_every_key_with_local_and_the_project_has_none():
    keys = ("access_key_id", "secret_access_key", "keyfile", "credentialpath", "password")
    commands = [line for line in PAGE.splitlines() if line.startswith("dvc remote modify")]
    assert len(commands) >= 8
    for line in commands:
        assert ("--local" in line) == any(key in line for key in keys), line
    assert not [key for key in keys if key in (REPO / ".dvc/config").read_text()]
    assert git(REPO, "ls-files", ".dvc/config.local") == ""


# --- Failures ---


def stranger(server: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A remote's options with a wrong key, and the server's answer to it."""
    shown, secret = server.options(server.port, "stranger")
    if "keyfile" in secret:
        return shown, {"keyfile": server.folder / "stranger"}, "Permission denied for user"
    return shown, secret | {"secret_access_key": "wrong"}, "Forbidden"


def test_wrong_key_ends_a_push_with_one_line(server: Any, latents: Path):
    *options, reason = stranger(server)
    point(latents, *options)
    failure(dvc(latents, "push"), f"ERROR: unexpected error - {reason}")
    assert server.objects("stranger") == {}


def test_doctor_tells_a_remote_that_answers_from_one_that_refuses(server: Any, latents: Path):
    (latents / ".venv").symlink_to(BIN.parent)
    point(latents, *server.options(server.port, "examined"))
    assert storage.remote(latents).level == "ok"
    *options, _ = stranger(server)
    point(latents, *options)
    refused = storage.remote(latents)
    assert refused.level == "wrong"
    assert "cannot be reached (" in refused.text
    assert "Check your key" in refused.text or "Permission denied for user" in refused.text
    assert "docs/remotes.md" in refused.mend


@pytest.mark.parametrize("server", [S3], indirect=True)
def test_bucket_that_is_missing_is_named_and_not_made(server: Any, latents: Path):
    shown, secret = server.options(server.port, "run")
    point(latents, shown | {"url": "s3://no-such-bucket/run"}, secret)
    failure(dvc(latents, "push"), "ERROR: unexpected error - The specified bucket does not exist")


@pytest.mark.parametrize("server", [SSH], indirect=True)
def test_pull_from_another_folder_names_what_it_misses(server: Any, latents: Path):
    point(latents, *server.options(server.port, "another"))
    listed = object_of(latents, ".dir").removeprefix("files/md5/").replace("/", "")
    wipe(latents, "latents")
    failure(
        dvc(latents, "pull"),
        "WARNING: Some of the cache files do not exist neither locally nor on remote.",
        listed,
        "ERROR: failed to pull data from the cloud",
    )


def test_push_that_lost_its_server_is_finished_by_the_next_one(
    server: Any, latents: Path, gate: Gate
):
    point(latents, *server.options(gate.port, "lost"))

    def lose_power():
        gate.close()
        server.kill()

    gate.watch("up", HALF, lose_power)
    done = dvc(latents, "push", "--jobs", "1")
    server.start()
    gate.reopen()
    failed = re.search(r"failed to push data to the cloud - (\d+) files failed", done.stdout)
    assert failed, done.stdout
    failure(done, "ERROR: failed to transfer '")
    whole = {k: v for k, v in server.objects("lost").items() if not k.endswith(".tmp")}
    assert 0 < sound(whole) == FILES - int(failed[1]) + 1 < FILES  # one more: the folder's list
    again = must(dvc(latents, "push"))
    assert f"{FILES + 1 - len(whole)} files pushed" in again.stdout
    whole = {k: v for k, v in server.objects("lost").items() if not k.endswith(".tmp")}
    assert sound(whole) == FILES + 1


def test_killed_pull_is_finished_by_the_next_one(server: Any, latents: Path, gate: Gate):
    before = snapshot(latents / "latents")
    seed(server, latents, "cut")
    point(latents, *server.options(gate.port, "cut"))
    wipe(latents, "latents")
    process = subprocess.Popen(
        [str(BIN / "dvc"), "pull", "--quiet", "--jobs", "1"],
        cwd=latents,
        env=environment(latents),
    )
    gate.watch("down", HALF, process.kill)
    assert process.wait(timeout=600) == -9
    assert not (latents / "latents").exists()
    must(dvc(latents, "pull"))
    assert snapshot(latents / "latents") == before


@pytest.mark.parametrize("server", [S3], indirect=True)
def test_silent_s3_server_ends_a_push_after_its_read_timeout(
    server: Any, latents: Path, gate: Gate
):
    shown, secret = server.options(gate.port, "silent")
    point(latents, shown | {"read_timeout": 1}, secret)
    gate.watch("up", 0, lambda: time.sleep(600))
    failure(dvc(latents, "push"), "ERROR: unexpected error - Read timeout on endpoint URL")


def test_damaged_object_is_kept_out_named_and_mended(server: Any, latents: Path, tmp_path: Path):
    seed(server, latents, "damaged")
    point(latents, *server.options(server.port, "damaged"))
    server.write(f"damaged/{object_of(latents, '3.pt')}", bytes(FILE_SIZE))
    check_and_mend(latents, tmp_path / "other")
    assert sound(server.objects("damaged")) == FILES + 1


def test_folder_of_the_page_carries_latents_and_is_mended(latents: Path, tmp_path: Path):
    store = tmp_path / "store"
    shell(latents, block("A folder").replace("/PATH/TO/FOLDER", str(store)))
    must(dvc(latents, "push"))
    assert sound(snapshot(store)) == FILES + 1
    spoilt = store / object_of(latents, "3.pt")
    spoilt.chmod(0o644)
    spoilt.write_bytes(bytes(FILE_SIZE))
    check_and_mend(latents, tmp_path / "other")
    assert sound(snapshot(store)) == FILES + 1


def check_and_mend(good: Path, clone: Path):
    """The remote has a damaged 3.pt: ``clone`` refuses it until ``good`` has mended it."""
    other, name = copy_of(good, clone), object_of(good, "3.pt")
    wipe(other, "latents")
    failure(dvc(other, "pull"), "ERROR: failed to pull data from the cloud - Checkout failed")
    assert not (other / ".dvc/cache" / name).exists()
    found = command(good, sys.executable, CHECK)
    failure(found, "damaged: latents/3.pt (", f"{name})\n{FILES + 1} objects, 1 missing or damaged")
    mended = must(command(good, sys.executable, CHECK, "--mend"))
    assert "): mended\n" in mended.stdout
    must(dvc(other, "pull"))
    assert snapshot(other / "latents") == snapshot(good / "latents")


def test_object_that_the_cache_lacks_too_is_named_and_left(latents: Path, tmp_path: Path):
    cache, store = latents / ".dvc/cache", tmp_path / "store"
    point(latents, {"url": store})
    shutil.copytree(cache, store)
    lost, listed = object_of(latents, "3.pt"), object_of(latents, ".dir")
    for gone in (cache / lost, store / lost, store / listed):
        gone.unlink()
    failure(
        command(latents, sys.executable, CHECK, "--mend"),
        f"missing: latents/3.pt ({store / lost}): this machine's cache has no sound copy either\n",
        f"missing: latents ({store / listed}): mended\n",
        f"\n{FILES + 1} objects, 1 missing or damaged\n",
    )


def test_check_of_an_unknown_remote_fails_in_one_line(latents: Path):
    done = command(latents, sys.executable, CHECK, "--remote", "elsewhere")
    failure(done, "error: elsewhere: config file error: remote 'elsewhere' doesn't exist")
    assert done.stdout.count("\n") == 1

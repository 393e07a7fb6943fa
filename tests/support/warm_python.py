"""A Python that has already imported the slow packages, for tests that start many programs.

Each program runs in a fork of it, with the caller's files, folder and environment, so it differs
from a fresh process only in the time of its imports.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pickle
import re
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import yaml

CLIENT = [sys.executable, "-IS", str(Path(__file__).with_name("warm_client.py"))]
PACKAGES = {
    "dvc": [
        "dvc.cli.parser",
        "dvc.repo.experiments.queue.celery",
        "dvc.repo.plots",
        "dvc.repo.reproduce",
        "dvc.utils.hydra",
        "pydantic",
        "scmrepo.git",
        "yaml",
    ],
    "s3": ["dvc_s3", "s3fs"],
    "ssh": ["dvc_ssh", "sshfs"],
    "train_disc": ["PIL.Image", "pydantic", "torch", "tqdm"],
    "stages": [
        "diffusers.models.unets.unet_2d",
        "efficientnet_lite_pytorch",
        "pandas",
        "PIL.Image",
        "pydantic",
        "safetensors.torch",
        "torch",
        "tqdm",
    ],
}


@cache
def warm_python(*kinds: str) -> str:
    """The address of a server with the packages of these kinds; it ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="warm")  # a socket's path has at most 107 bytes
    address = Path(folder.name) / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, str(address), *kinds],
        stdin=subprocess.PIPE,  # whose end tells the server to stop
    )
    atexit.register(folder.cleanup)
    while not address.exists():
        assert server.poll() is None, "warm_python did not start"
        time.sleep(0.05)
    return str(address)


def write_shim(path: Path, script: str = "") -> None:
    """A program that runs ``script`` (as sh reads it), or the one it is given, in WARM_PYTHON."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(CLIENT)} {script} "$@"\n')
    path.chmod(0o755)


class QuickDumper(yaml.CSafeDumper):
    """Writes what DVC's own reader takes for the same values."""


QuickDumper.add_implicit_resolver(  # 12e3, as a checksum may look: numbers to that reader alone
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+[eE][-+]?[0-9]+|0o[0-7]+)$"),
    [*"-+0123456789"],
)


def quicken_yaml() -> None:
    """Let DVC read each text once, and write its lock without regard to comments and layout.

    Its own ways are made for files that people edit, and took half of the time of a `dvc repro` of
    fake stages: it reads params.yaml several times for each of them, and the lock is made anew.
    """
    from dvc.utils.serialize import _yaml

    parse, dump = _yaml.parse_yaml, _yaml._dump
    known: dict[str, bytes] = {}  # by text, pickled: each reader gets a copy of its own

    def quick_parse(text: str, path: str, typ: str = "safe") -> Any:
        if text not in known:
            known[text] = pickle.dumps(parse(text, path, typ))
        return pickle.loads(known[text])

    def quick_dump(data: Any, stream: TextIO) -> None:
        if "schema" not in data:  # of dvc.lock
            dump(data, stream)
            return
        text = yaml.dump(data, None, QuickDumper, sort_keys=False, allow_unicode=True)
        known[text] = pickle.dumps(data)
        stream.write(text)

    QuickDumper.add_representer(OrderedDict, yaml.representer.SafeRepresenter.represent_dict)
    _yaml.parse_yaml = _yaml.parse_yaml_for_update = quick_parse
    _yaml._dump = quick_dump


def run(argv: list[str], folder: str, env: dict[str, str]) -> int:
    """The exit status of a script in this process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    code: object = 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)  # type: ignore[call-overload]


def obey(client: socket.socket) -> None:
    """Take the signals that the client gets, and end with it."""
    while got := client.recv(1):
        os.kill(os.getpid(), got[0])
    os.kill(os.getpid(), signal.SIGKILL)


def answer(client: socket.socket) -> None:
    """Run what a client asks for, with its standard files."""
    head, files, _, _ = socket.recv_fds(client, 8, 3)
    wanted, job = int.from_bytes(head, "big"), b""
    while len(job) < wanted:
        job += client.recv(wanted - len(job))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # Those of the server take their descriptors for what they were when it started.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1, closefd=False)
    threading.Thread(target=obey, args=[client], daemon=True).start()
    client.sendall(str(run(*json.loads(job)) % 256).encode())


def serve(address: str, kinds: list[str]) -> None:
    """Run what clients ask for, until standard input ends."""
    for name in (name for kind in kinds for name in PACKAGES[kind]):
        importlib.import_module(name)
    if "dvc" in kinds:
        quicken_yaml()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os.setpgid(0, 0)  # what a program does to its process group spares the tests
                answer(client)
                os._exit(0)
            client.close()
            with contextlib.suppress(ChildProcessError):  # none is left
                while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
                    pass


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])

"""A ``python`` that has already imported the heavy packages, for tests that run many stages.

`python warm_python.py SOCKET` waits for scripts; ``write_shim`` writes the ``python`` that sends
them there. Each runs in a fork of its own with the caller's files, folder and environment, so it
differs from a fresh process only in the time of its imports.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (
    "diffusers.models.unets.unet_2d",
    "efficientnet_lite_pytorch",
    "omegaconf",
    "pandas",
    "PIL.Image",
    "safetensors.torch",
    "torch",
    "tqdm",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
if len(sys.argv) < 2 or not sys.argv[1].endswith(".py"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    job = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(job).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(job)
    sys.exit(int(server.recv(8) or b"1"))
"""


def write_shim(path: Path, address: Path) -> None:
    path.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    path.chmod(0o755)


@contextmanager
def warm_python(address: Path) -> Iterator[None]:
    """Run the server at ``address`` during the block."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, __file__, str(address)], env=env)
    try:
        while not address.exists():
            assert server.poll() is None, "the server of warm_python did not start"
            time.sleep(0.05)
        yield
    finally:
        server.kill()
        server.wait()


def _run(argv: list[str], folder: str, env: dict[str, str], files: list[int]) -> int:
    for number, file in enumerate(files):
        os.dup2(file, number)
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


def serve(address: str) -> None:
    for name in PACKAGES:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            client, _ = listener.accept()
            head, files, _, _ = socket.recv_fds(client, 8, 3)
            wanted, job = int.from_bytes(head, "big"), b""
            while len(job) < wanted:
                job += client.recv(1 << 16)
            if (child := os.fork()) == 0:
                listener.close()
                os._exit(_run(*json.loads(job), list(files)))
            for file in files:
                os.close(file)
            _, status = os.waitpid(child, 0)
            client.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
            client.close()


if __name__ == "__main__":
    serve(sys.argv[1])

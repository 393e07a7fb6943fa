"""What the test servers share: a program on loopback, and a gate in front of it."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below the range of outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"{count} free ports are needed, {len(found)} were found")


class Server:
    """A program that serves a folder to clients with a key; it can be killed and started again."""

    start_seconds = 120  # on a busy machine; on an idle one SeaweedFS takes three

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        (self.port,) = free_ports(1)

    def args(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as stream:
            self.process = psutil.Popen(
                self.args(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        deadline = time.monotonic() + self.start_seconds
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.args()}: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it like a power cut, together with the children that serve its connections."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [*self.process.children(recursive=True), self.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


class Gate:
    """A TCP relay to ``port`` that calls ``act`` when too many bytes have gone one way.

    Those bytes wait until ``act`` returns, so that what it kills is killed in mid-transfer on any
    machine.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        (self.port,) = free_ports(1)
        self.lock = threading.Lock()
        self.sockets: list[socket.socket] = []
        self.left: dict[str, int] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        self.reopen()
        try:
            yield
        finally:
            self.close()

    def watch(self, direction: str, limit: int, act: Callable[[], object]) -> None:
        """``up`` is towards the server."""
        self.left, self.act = {direction: limit}, act

    def reopen(self) -> None:
        listener = socket.create_server((HOST, self.port))
        self.sockets = [listener]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """End all connections and refuse new ones, like the port of a dead server."""
        for each in self.sockets:
            with contextlib.suppress(OSError):  # the other end was faster
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # `close` ends the loop
            while True:
                client, _ = listener.accept()
                self.sockets.append(client)
                server = socket.create_connection((HOST, self.target))
                self.sockets.append(server)
                for each in (client, server):  # or each small answer waits 40 ms for more
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for way in (("up", client, server), ("down", server, client)):
                    threading.Thread(target=self._relay, args=way, daemon=True).start()

    def _relay(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of the two ends is gone
            while data := source.recv(1 << 16):
                self._count(direction, len(data))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _count(self, direction: str, size: int) -> None:
        with self.lock:
            if direction in self.left:
                self.left[direction] -= size
                if self.left[direction] < 0:
                    self.left = {}
                    self.act()

"""An SSH server on loopback: OpenSSH's if it is installed and starts, else asyncssh's."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import asyncssh
from servers import HOST, Server


class SSH(Server):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.user = getpass.getuser()
        self.data = folder / "data"
        self.data.mkdir()
        for name in ("host", "key", "stranger"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(folder / name)
            (folder / name).chmod(0o600)
            key.write_public_key(folder / f"{name}.pub")
        shutil.copyfile(folder / "key.pub", folder / "authorized_keys")

    def ready(self) -> bool:
        try:
            asyncio.run(self._log_in())
        except (OSError, asyncssh.Error):
            return False
        return True

    async def _log_in(self) -> None:
        keys = [str(self.folder / "key")]
        options = asyncssh.SSHClientConnectionOptions(
            username=self.user, client_keys=keys, known_hosts=None, config=None, login_timeout=10
        )
        async with asyncssh.connect(HOST, self.port, options=options) as connection:
            await connection.start_sftp_client()

    def objects(self, below: str) -> dict[str, bytes]:
        """The objects below a folder, by name."""
        root = self.data / below
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    def write(self, name: str, data: bytes) -> None:
        (self.data / name).parent.mkdir(parents=True, exist_ok=True)
        (self.data / name).write_bytes(data)

    def options(self, port: int, below: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A remote's options in `.dvc/config` and in `.dvc/config.local`, for one folder."""
        url = f"ssh://{self.user}@{HOST}:{port}{self.data}/{below}"
        return {"url": url}, {"keyfile": self.folder / "key"}

    def filled(self, block: str, port: int, below: str) -> str:
        """The page's commands, with this server in place of their placeholders."""
        shown, secret = self.options(port, below)
        block = block.replace("ssh://USER@HOST/FOLDER", shown["url"])
        return block.replace("~/.ssh/id_ed25519", str(secret["keyfile"]))


class AsyncSSH(SSH):
    def args(self) -> list[str]:
        script = Path(__file__).with_name("sftp_server.py")
        files = [str(self.folder / name) for name in ("host", "authorized_keys")]
        return [sys.executable, str(script), str(self.port), *files]


class OpenSSH(SSH):
    start_seconds = 15  # then asyncssh's is tried
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")

    def args(self) -> list[str]:
        options = {
            "ListenAddress": f"{HOST}:{self.port}",
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
        }
        arguments = [f"-o{name}={value}" for name, value in options.items()]
        return [str(self.program), "-D", "-e", "-f", "/dev/null", *arguments]


def start_ssh(folder: Path) -> SSH:
    """A running server. OpenSSH's may refuse, without /run/sshd or for a locked account."""
    if OpenSSH.program:
        with contextlib.suppress(RuntimeError):
            server = OpenSSH(folder / "openssh")
            server.start()
            return server
    fallback = AsyncSSH(folder / "asyncssh")
    fallback.start()
    return fallback

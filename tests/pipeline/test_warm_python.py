"""Facts of the Python that tests start programs in."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import warm_python
import yaml
from conftest import REPO
from dvc.utils.serialize import _yaml


def test_lock_that_it_writes_holds_what_dvc_would_have_written() -> None:
    lock = yaml.safe_load((REPO / "dvc.lock").read_text())
    lock["stages"] = dict(list(lock["stages"].items())[:3])
    texts = ["12e3", "1e10", "0x1f", "0o17", "017", "yes", "null", "~", "1.5", "-1", "é: #", "2.0"]
    lock["values"] = [*texts, 12e3, 1e-5, 0.5, 3, True, None, {}, []]
    own = _yaml.dumps_yaml(lock)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_yaml", "parse_yaml_for_update", "_dump"):
            patch.setattr(_yaml, name, getattr(_yaml, name))  # and afterwards as they were
        warm_python.quicken_yaml()
        written = io.StringIO()
        _yaml._dump(lock, written)
        text = written.getvalue()
        for _ in range(2):
            _yaml.parse_yaml(text, "dvc.lock")["stages"].clear()  # of one reader alone
        assert _yaml.parse_yaml(text, "dvc.lock") == lock
        with pytest.raises(_yaml.YAMLFileCorruptedError, match=r"torn\.lock"):
            _yaml.parse_yaml("stages: [", "torn.lock")
    assert text != own
    assert _yaml.parse_yaml(text, "dvc.lock") == _yaml.parse_yaml(own, "dvc.lock") == lock


def test_server_ends_with_the_process_that_started_it() -> None:
    code = "import warm_python; print(warm_python.warm_python())"
    folder = str(Path(warm_python.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    address = done.stdout.strip()
    deadline = time.monotonic() + 30
    while any(address in process.info["cmdline"] or [] for process in listed()):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)


def listed() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]

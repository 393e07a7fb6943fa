"""Memory that does not suffice: one line with the parameter to lower."""

from __future__ import annotations

import ast
import re
import resource
import subprocess
from pathlib import Path

import pytest
from conftest import BIN, REPO, environment, make_project
from omegaconf import OmegaConf
from stage_runner import START, run_stage

GIB = 2**30


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("memory"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        for stage in ("prepare", "train_autoencoder", "encode_dataset"):
            run_stage(stage, START[stage], monkeypatch)
    return project


def test_a_batch_that_does_not_fit_is_named_with_the_parameter_to_lower(project: Path) -> None:
    params = OmegaConf.load(project / "params.yaml")
    params.base.batch_size = params.base.samples_per_epoch = 10**6
    OmegaConf.save(params, project / "params.yaml")
    argv = [str(BIN / "python"), "stages/train_base.py"]
    for option, value in START["train_base"].items():
        argv += [f"--{option}", str(value)]
    done = subprocess.run(
        argv,
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * GIB, 6 * GIB)),
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == (
        "error: out of memory with base.batch_size=1000000; lower it with `dvc exp run -S "
        "base.batch_size=…`, or end what else needs memory\n"
    )
    assert not (project / "base").exists()


def test_every_stage_with_a_batch_size_names_its_own() -> None:
    named = {}
    for script in sorted((REPO / "stages").glob("*.py")):
        found = re.search(r'run_(?:shared_)?stage\(main, memory="(.*)"\)', script.read_text())
        calls = [node for node in ast.walk(ast.parse(script.read_text()))]
        if any(isinstance(node, ast.Name) and node.id == "device" for node in calls):
            assert found or script.name == "resuming.py", script.name
        if found:
            named[script.stem] = found.group(1)
    params = OmegaConf.load(REPO / "params.yaml")
    for stage, key in named.items():
        assert OmegaConf.select(params, key) is not None, f"{stage}: {key}"

"""If memory runs out, one line names the parameter to lower."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import BIN, REPO, environment
from omegaconf import OmegaConf
from stage_runner import START, arguments

GIB = 2**30


@pytest.mark.xdist_group("resume_stages")  # the worker that has ``whole``
def test_a_batch_that_does_not_fit_is_named_with_the_parameter_to_lower(
    whole: Path, tmp_path: Path
):
    project = tmp_path / "project"
    shutil.copytree(whole, project)
    shutil.rmtree(project / "base")
    params = OmegaConf.load(project / "params.yaml")
    params.base.batch_size = params.base.samples_per_epoch = 10**6
    OmegaConf.save(params, project / "params.yaml")
    done = subprocess.run(
        [str(BIN / "python"), "stages/train_base.py", *arguments(START["train_base"])],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * GIB, 6 * GIB)),
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == (
        "error: out of memory with base.batch_size=1000000; lower it with `dvc exp run -S "
        "base.batch_size=…`, or stop other programs that use memory\n"
    )
    assert not (project / "base").exists()


def test_every_stage_that_uses_a_device_names_a_parameter_that_exists():
    params, named = OmegaConf.load(REPO / "params.yaml"), 0
    for script in sorted((REPO / "stages").glob("*.py")):
        code = script.read_text()
        if "pick_device()" in code:
            found = re.search(r'run_(?:shared_)?stage\(main, memory="(.*)"\)', code)
            assert found, script.name
            assert OmegaConf.select(params, found[1]) is not None, f"{script.name}: {found[1]}"
            named += 1
    assert named > 5

"""Temporary copies of the project: a tiny one that trains, and one whose stages are fakes.

A project stands at ``<folder>/project``, so that what lies beside it (the default remote,
a clone, the fakes' ``bin``) is its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from warm_python import CLIENT, warm_python, write_shim

if TYPE_CHECKING:
    from stage_folder import StageFolder

REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
OWN = (
    "stages",
    "src",
    "conf",
    "dvc.yaml",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    ".gitattributes",
)
GROUPS, IMAGES_PER_GROUP = 10, 6
WARM = ("dvc",)  # what programs of a project need not import

# As small as each stage can be; every key must be one of conf/scale/demo.yaml.
TINY = {
    "scale": "tiny",
    "num_iterations": 2,
    "precision": "fp32",
    "data": {"image_size": 16, "tiles": 1, "max_flat": 1.0},
    "autoencoder": {
        "pretrained": None,
        "latent_channels": 4,
        "factor": 4,
        "width": 8,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "epochs": 2,
        "batch_size": 8,
    },
    "encode_dataset": {"augment": "hflip", "batch_size": 16},
    "unet": {
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "attention_levels": [],
        "norm_num_groups": 4,
    },
    "dit": {
        "patch_size": 2,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
    },
    "base": {
        "pretrained": None,
        "epochs": 2,
        "samples_per_epoch": 32,
        "batch_size": 16,
        "warmup_steps": 1,
        "eval_interval": 1,
    },
    "generate": {"num_samples": 20, "num_inference_steps": 2, "batch_size": 8},
    "discriminator": {"channels": [8]},
    "train_disc": {"epochs": 2, "batch_size": 8},
    "train_diffusion": {
        "epochs": 2,
        "samples_per_epoch": 32,
        "batch_size": 16,
        "warmup_steps": 1,
        "eval_interval": 1,
        "sample_interval": 1,
        "num_preview_samples": 4,
        "preview_steps": 2,
    },
    "evaluate": {
        "critic_widths": [8],
        "critic_epochs": 2,
        "feature_size": 32,
        "num_samples": 6,
        "num_seeds": 3,
        "base_num_inference_steps": 2,
        "batch_size": 4,
    },
}


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Of content and pictures, whose own texts are long, or other ones in each worker."""
    return argname if isinstance(val, bytes | Image.Image) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first: they are long, and the last one would leave the other workers idle."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def environment(project: Path) -> dict[str, str]:
    """The fakes' programs if there are any, then those of the virtual environment."""
    beside = project.parent
    env = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    env |= {
        "PATH": os.pathsep.join([str(beside / "bin"), str(BIN), os.environ["PATH"]]),
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(beside / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(beside / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(beside / "dvc-site"),
        "WARM_PYTHON": warm_python(*WARM),
    }
    return env


def command(project: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the project; standard error is part of ``stdout``.

    env: variables beside those of ``environment``.
    """
    return subprocess.run(
        args,
        cwd=project,
        env=environment(project) | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
        check=False,
    )


def dvc(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return command(project, *CLIENT, str(BIN / "dvc"), *args)


def must(result: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The result of a command that has to succeed."""
    assert result.returncode == 0, f"{result.args}\n{result.stdout}"
    return result


def git(project: Path, *args: str) -> str:
    return must(command(project, "git", *args)).stdout


def commit(project: Path, message: str) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", message)


def ran(result: subprocess.CompletedProcess[str]) -> set[str]:
    """The stages that DVC ran; one that it skipped or took from its run-cache is none."""
    return set(stages_run(result.stdout))


def stages_run(printed: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)':", printed)


def compose(project: Path, *overrides: str) -> None:
    """params.yaml from conf/, by the very call of the Makefile's target ``params``."""
    makefile = (REPO / "Makefile").read_text()
    call = re.search(r'^params:.*?python -c "(.*?)"', makefile, re.S | re.M)
    assert call, "Makefile: no `python -c` call in target params"
    code = call[1].replace("\\\n", "")
    assert code.count("[]") == 1
    script = project.parent / "compose.py"
    script.write_text(code.replace("[]", repr(list(overrides))))
    must(command(project, *CLIENT, str(script)))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Contents of every file below ``folder``, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_images(folder: Path, size: int, groups: int, each: int) -> None:
    """Coloured rectangles on a coloured ground, in one sub-folder a group."""
    stream = np.random.default_rng(0)
    for group in range(groups):
        place = folder / f"group_{group:02d}"
        place.mkdir(parents=True)
        for k in range(each):
            pixels = np.full((size, size, 3), stream.integers(256, size=3), dtype=np.uint8)
            top, left = stream.integers(size // 2, size=2)
            side = stream.integers(size // 4, size // 2)
            pixels[top : top + side, left : left + side] = stream.integers(256, size=3)
            Image.fromarray(pixels).save(place / f"{k}.png")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r} must stand there once"
    path.write_text(text.replace(old, new))


def new_repository(project: Path) -> None:
    """A git repository that takes commits and leaves out what DVC keeps for itself."""
    (project / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    git(project, "init", "--quiet", "--initial-branch", "main")
    for key, value in (
        ("user.name", "Test"),
        ("user.email", "test@example.invalid"),
        ("commit.gpgsign", "false"),
    ):
        git(project, "config", key, value)


def make_project(folder: Path, iterations: int = 2) -> Path:
    """``folder/project``: the project's own files in a fresh git repository, at scale tiny."""
    project = folder / "project"
    (project / ".dvc").mkdir(parents=True)
    for name in OWN:
        source = REPO / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, project / name, ignore=ignored)
        else:
            shutil.copyfile(source, project / name)
    demo = OmegaConf.load(REPO / "conf/scale/demo.yaml")
    OmegaConf.set_struct(demo, True)  # a key that demo.yaml has not is an error
    tiny = OmegaConf.to_yaml(OmegaConf.merge(demo, TINY, {"num_iterations": iterations}))
    (project / "conf/scale/tiny.yaml").write_text(f"# @package _global_\n{tiny}")
    _replace(project / "conf/config.yaml", "- scale: demo", "- scale: tiny")
    # The default objective sets the lengths of trainings and samplers, which are tiny here.
    _replace(project / "conf/config.yaml", "- objective: adversarial", "- objective: ddo")
    _replace(project / "conf/config.yaml", "source: data/freedoom_plans.zip", "source: images")
    write_images(project / "images", 24, GROUPS, IMAGES_PER_GROUP)
    new_repository(project)
    compose(project)
    commit(project, "Start")
    return project


def fake_stages(project: Path) -> None:
    """Let ``python`` mean support/fake_stage.py for this project's DVC."""
    bin = project.parent / "bin"
    bin.mkdir()
    shutil.copyfile(REPO / "tests/support/fake_stage.py", bin / "fake.py")
    write_shim(bin / "python", '"${0%/*}/fake.py"')  # that of the copy, if a project is copied
    write_shim(bin / "dvc", str(BIN / "dvc"))  # for programs that call it


def fail_at(project: Path, *stages: str) -> None:
    """Make these fake stages fail from now on; none: let all pass."""
    (project.parent / "bin/fail").write_text(" ".join(stages))


class Finished(NamedTuple):
    """A project of fake stages after `dvc repro`, which is committed, and what DVC printed."""

    project: Path
    printed: str


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker which asks for it makes; the others wait."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # which the workers share
    folder = place / name
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder


def finished(iterations: int, factory: pytest.TempPathFactory) -> Finished:
    def make(folder: Path) -> None:
        project = make_project(folder, iterations)
        fake_stages(project)
        done = must(dvc(project, "repro"))
        commit(project, "Run")
        (folder / "printed").write_text(done.stdout)

    folder = made_once(f"finished_{iterations}", factory, make)
    return Finished(folder / "project", (folder / "printed").read_text())


@pytest.fixture(scope="session")
def finished_fakes(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A project of fake stages whose two iterations are finished and committed."""
    return finished(2, tmp_path_factory)


@pytest.fixture(scope="session")
def finished_round(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """``finished_fakes`` of one iteration, for what needs no second: DVC has less to do."""
    return finished(1, tmp_path_factory)


def copy_of(project: Path, folder: Path) -> Path:
    """A project, and what lies beside it, in a new folder."""
    shutil.copytree(project.parent, folder, symlinks=True)
    return folder / project.name


@pytest.fixture
def fakes(finished_fakes: Finished, tmp_path: Path) -> Path:
    """A copy of ``finished_fakes`` for one test."""
    return copy_of(finished_fakes.project, tmp_path / "fakes")


@pytest.fixture
def one_round(finished_round: Finished, tmp_path: Path) -> Path:
    """A copy of ``finished_round`` for one test."""
    return copy_of(finished_round.project, tmp_path / "round")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages have all run up to a round's end, none of them disturbed."""
    from stage_runner import ROUND, START, run_stage

    project = make_project(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        for stage, options in (START | ROUND).items():
            run_stage(stage, options, monkeypatch)
    return project


@pytest.fixture(scope="session")
def good_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage has run once; see stage_folder.py."""
    from stage_folder import build  # loads diffusers, which few tests wait for

    return made_once("good", tmp_path_factory, build) / "project"


@pytest.fixture
def stages(good_stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    """A copy of ``good_stages`` for one test, in which single stages run."""
    from stage_folder import StageFolder

    shutil.copytree(good_stages, tmp_path / "project")
    return StageFolder(tmp_path / "project", monkeypatch)

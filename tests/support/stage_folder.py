"""A folder in which every stage has run once at scale tiny, to run single stages again in.

What a stage writes goes to ``made/``; what it reads stands beside it, as earlier stages made it.
"""

from __future__ import annotations

import importlib
import io
import re
import shutil
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from _runtime.errors import run_stage

import pytest
import torch
import yaml
from conftest import REPO, make_project, snapshot
from diffusers import AutoencoderKL
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

import check_config
from advloop.models.autoencoder import load_autoencoder
from advloop.models.denoiser import load_checkpoint
from hydra_plugins import advloop_derived
from hydra_plugins.advloop_derived import derive

Plugins.instance()  # imports hydra_plugins again, which would undo StageFolder's patch of it

ROUND = "rounds/iter_0"
MODEL = "base/checkpoint_best.pt"
TUNED = f"{ROUND}/model/checkpoint_best.pt"
DISC = f"{ROUND}/discriminator/discriminator_best.pt"
FAKE, REAL = f"{ROUND}/fake_latents.pt", f"{ROUND}/real_latents.pt"
PREDICTED = "predictions/iter_0/predicted_latents.pt"
LISTED = f"{ROUND}/real_latents.csv"
REPLAY = f"{ROUND}/discriminator/replay_latents.pt"


BODIES = {
    name: body.get("do", body)
    for name, body in yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"].items()
}


def stage_options() -> dict[str, dict[str, Any]]:
    """By script, the options that DVC passes in round 0.

    What stands in outputs/ or reports/ stands here in the folder itself, or in made/ if the stage
    writes it.
    """
    derived = derive("plans", 1, True, 0.25, 0.0, None, None, None, None)
    values = {"key": "0", "derived.captions_option": derived["captions_option"]}
    values |= {f"item.{name}": value for name, value in derived["iterations"]["0"].items()}
    found = {}
    for body in BODIES.values():
        outs = [out for kind in ("outs", "metrics", "plots") for out in body.get(kind, [])]
        written = [filled(out if isinstance(out, str) else next(iter(out)), values) for out in outs]
        script, *words = filled(body["cmd"], values).split()[1:]
        options = dict(
            zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True)
        )
        for name, value in options.items():
            made = any(f"{out}/".startswith(f"{value}/") for out in written)
            options[name] = "made/" * made + re.sub("^(outputs|reports)/", "", value)
        found[Path(script).stem] = options
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(.*?)\}", lambda name: values[name[1]], text)


STAGES = stage_options()
USUAL = [stage for stage in STAGES if stage != "encode_captions"]  # of a run without captions
STAGES["train_disc"] |= {"iteration": 1, "replay": REPLAY}  # the first one that reads earlier fakes
# Each stage reads all that it can read, and evaluation takes no network from elsewhere.
CHOICES = (
    "objective=ddo_weighted",
    "train_disc.predicted_fraction=0.25",
    "train_disc.replay_fraction=0.25",
    "evaluate.features=encoder",
)


class Outcome(NamedTuple):
    """How a stage ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


class StageFolder:
    """A folder to work in, where stages run in this process as their scripts would."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.stream: type[io.StringIO] = io.StringIO  # of standard output, and of standard error
        patch.chdir(root)
        patch.setenv("ADVLOOP_DEVICE", "cpu")
        patch.setattr(check_config, "CONF", root / "conf")
        patch.setattr(advloop_derived, "CONF", root / "conf")

    def compose(self, *overrides: str) -> None:
        """params.yaml from conf/ and ``overrides``, as `dvc exp run -S` makes it."""
        with initialize_config_dir(str(self.root / "conf"), version_base=None):
            content = compose("config", list(overrides))
        OmegaConf.save(content, self.root / "params.yaml", resolve=True)

    def set(self, changes: Mapping[str, Any]) -> None:
        """Merge ``changes`` into params.yaml."""
        path = self.root / "params.yaml"
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), changes), path)

    def run(self, stage: str, **options: Any) -> Outcome:
        """What the stage's script does when DVC calls it.

        options: in place of STAGES'; None leaves one out.
        """
        argv = [f"{stage}.py"]
        for option, value in (STAGES[stage] | options).items():
            argv += [] if value is None else [f"--{option}", str(value)]
        self.patch.setattr("sys.argv", argv)
        out, err = self.stream(), self.stream()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            run_stage(importlib.import_module(stage).main)
        return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def must(self, stage: str, **options: Any) -> Outcome:
        """``run``, which has to succeed."""
        outcome = self.run(stage, **options)
        assert outcome.status == 0, outcome
        return outcome

    def keep(self) -> None:
        """Move what stages made to where later stages read it."""
        shutil.copytree(self.root / "made", self.root, dirs_exist_ok=True)
        shutil.rmtree(self.root / "made")

    def mend(self, good: Path) -> None:
        """Every input as it is in the folder ``good``; what stages made here stays."""
        for path in self.root.iterdir():
            if path.is_dir() and not path.is_symlink():
                if path.name != "made":
                    shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(good, self.root, symlinks=True, dirs_exist_ok=True)

    def made(self) -> dict[str, bytes]:
        """Every file that stages have written here."""
        return snapshot(self.root / "made")


def run_all(place: StageFolder, captions: bool = False) -> None:
    """Every stage of a run of one round, each on what those before it made.

    captions: whether the run has them.
    """
    with_captions = {name for name, body in BODIES.items() if "${derived.captions}" in body["deps"]}
    for stage in STAGES if captions else USUAL:
        options = {"iteration": 0, "replay": None} if stage == "train_disc" else {}
        if captions and stage in with_captions:
            options["captions"] = "captions.safetensors"
        place.must(stage, **options)
        place.keep()


def build(folder: Path) -> None:
    """Run every stage in a new tiny project at ``folder/project``, and add models to import."""
    project = make_project(folder, iterations=1)
    for name in (".git", "src", "stages"):  # the scripts of this repository run
        shutil.rmtree(project / name)
    with pytest.MonkeyPatch.context() as patch:
        place = StageFolder(project, patch)
        place.compose(*CHOICES)
        run_all(place)
    unet = load_checkpoint(project / MODEL).network
    unet.save_pretrained(project / "unet")
    torch.save(unet.state_dict(), project / "unet.pt")
    torch.save(load_autoencoder(project / "autoencoder").state_dict(), project / "vae.pt")
    AutoencoderKL(
        block_out_channels=[8, 8, 8],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    ).save_pretrained(project / "vae")
    shutil.make_archive(str(project / "images"), "zip", project / "images")

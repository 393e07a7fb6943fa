"""What a round writes, and the names of its files in the library and in the published tree.

Standard library only: DVC's Hydra plugin imports it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from advloop.core.errors import UserError

MOST_ITERATIONS = 100  # DVC alone looks at so many rounds' stages for half a minute
EXP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
BASE = "base"  # the model that round 0 starts from
BASE_FEW = "base_few_steps"  # the same with as few sampling steps as the rounds' models
EVALUATION = "evaluation"  # the folder of a model's scores and pictures
# Files of a model's training; a round's preview grids are SAMPLES/epoch_{eee}_samples.png.
CHECKPOINT, LATEST = "checkpoint_best.pt", "checkpoint_latest.pt"
HISTORY, METRICS, SAMPLES = "metrics.csv", "metrics.json", "samples"
# Files of a discriminator's training, beside METRICS.
DISCRIMINATOR, DISCRIMINATOR_FINAL = "discriminator_best.pt", "discriminator_final.pt"
DISCRIMINATOR_HISTORY, REPLAY = "discriminator_history.csv", "replay_latents.pt"


def check_exp_name(exp_name: object) -> str:
    """The name, fit to be part of a file name; ValueError otherwise."""
    name = str(exp_name)
    if not EXP_NAME.fullmatch(name):
        raise ValueError(
            f"exp_name={name} may hold up to 64 letters, digits, '.', '_' and '-', "
            "and must not start with '.' or '-'"
        )
    return name


def check_num_iterations(count: object) -> int:
    """The number of rounds; ValueError if it is none in [1, MOST_ITERATIONS]."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_ITERATIONS:
        raise ValueError(
            f"num_iterations={count} must be a whole number from 1 to {MOST_ITERATIONS}"
        )
    return count


@dataclass(frozen=True)
class Round:
    """The files of one iteration, in a folder of its own inside ``root``."""

    root: Path
    index: int

    @property
    def name(self) -> str:
        """``iter_{index}``, also the name of the model that the round ends with."""
        return f"iter_{self.index}"

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def fakes(self) -> Path:
        return self.folder / "fake_latents.pt"

    @property
    def predicted(self) -> Path:
        """Beside the rounds, not in them: not every run has it, and none may see another's."""
        return self.root.parent / "predictions" / self.name / "predicted_latents.pt"

    @property
    def reals(self) -> Path:
        return self.folder / "real_latents.pt"

    @property
    def discriminator_folder(self) -> Path:
        """What train_disc writes."""
        return self.folder / "discriminator"

    def discriminator(self, kind: str) -> Path:
        """kind: ``best`` or ``final``."""
        names = {"best": DISCRIMINATOR, "final": DISCRIMINATOR_FINAL}
        return self.discriminator_folder / names[kind]

    @property
    def discriminator_history(self) -> Path:
        return self.discriminator_folder / DISCRIMINATOR_HISTORY

    @property
    def discriminator_metrics(self) -> Path:
        return self.discriminator_folder / METRICS

    @property
    def replay(self) -> Path:
        """Fakes for the next round's discriminator."""
        return self.discriminator_folder / REPLAY

    @property
    def model_folder(self) -> Path:
        """What train_diffusion writes."""
        return self.folder / "model"

    def checkpoint(self, kind: str) -> Path:
        """kind: ``best`` or ``latest``."""
        return self.model_folder / {"best": CHECKPOINT, "latest": LATEST}[kind]

    @property
    def history(self) -> Path:
        """The epochs of train_diffusion."""
        return self.model_folder / HISTORY

    @property
    def metrics(self) -> Path:
        return self.model_folder / METRICS

    @property
    def samples(self) -> Path:
        """The preview grids, ``epoch_{eee}_samples.png``."""
        return self.model_folder / SAMPLES

    @property
    def evaluation(self) -> Path:
        return self.folder / EVALUATION

    def published(self, exp_name: str) -> Iterator[tuple[Path, Path]]:
        """(file, its name in the published tree) for all that a reader of the rounds wants."""
        prefix, own = f"{exp_name}_{self.name}", Path(f"discriminator_{self.name}")
        for file in (
            self.fakes,
            self.reals,
            self.discriminator("best"),
            self.discriminator("final"),
            self.discriminator_history,
        ):
            yield file, own / file.name
        for kind in ("best", "latest"):
            file = self.checkpoint(kind)
            yield file, Path("checkpoints") / f"{prefix}_{file.name}"
        for file in sorted(self.samples.glob("*.png")):
            yield file, Path("samples") / f"{prefix}_{file.name}"
        yield self.history, Path(f"{exp_name}_metrics_{self.name}.csv")


def prune_rounds(root: Path, count: int) -> list[Round]:
    """The ``count`` rounds of a run in ``root``; UserError where one is missing.

    DVC depends on ``root`` as a whole, and leaves the outputs of rounds there that a run with
    fewer iterations no longer has. They are removed, so that the same parameters leave the same
    folder; DVC's cache keeps them.
    """
    rounds = [Round(root, index) for index in range(count)]
    for one in rounds:
        if not one.folder.is_dir():
            raise UserError(f"{one.folder}: not found; make it with `dvc repro`")
    kept = {one.folder for one in rounds}
    for folder in root.iterdir():
        leftover = folder.is_dir() and re.fullmatch(r"iter_[0-9]+", folder.name)
        if leftover and folder not in kept:
            shutil.rmtree(folder)
    return rounds

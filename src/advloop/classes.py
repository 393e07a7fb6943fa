"""The classes of images and of their latents: names, labels, and how many of each are drawn.

A run has classes where ``data.classes`` says so. Then stage encode_dataset puts FILE beside the
latents; where it is not there, nothing has a class, and no stage draws or writes anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.core.io import load_model, save_torch
from advloop.core.runtime import generator
from advloop.dataset import Dataset

FILE = "classes.pt"


def apportion(count: int, weights: Sequence[int]) -> list[int]:
    """``count`` shared out in proportion to whole weights, of which one is above 0.

    By largest remainders (Hamilton's method), of equal ones the first: a share differs from the
    exact one by less than 1, and exceeds its weight nowhere if count <= sum(weights).
    """
    total = sum(weights)
    shares = [count * weight // total for weight in weights]
    rest = [count * weight % total for weight in weights]
    order = sorted(range(len(weights)), key=lambda k: -rest[k])
    for k in order[: count - sum(shares)]:
        shares[k] += 1
    return shares


@dataclass(frozen=True)
class Classes:
    """names: of the classes, sorted; label k means names[k].

    labels: of the rows of train.pt, val.pt and test.pt, by the split, (N,) int64.
    """

    names: tuple[str, ...]
    labels: Mapping[str, torch.Tensor]

    def of_rows(self, split: str, latents: torch.Tensor) -> torch.Tensor:
        """Labels (N,) of the latents (N, C, H, W) of a split."""
        labels = self.labels[split]
        if len(labels) != len(latents):
            raise UserError(
                f"{FILE}: {len(labels)} labels of {split} for {len(latents)} latents; remake both "
                "with `dvc repro`"
            )
        return labels

    def drawn(self, split: str, count: int, seed: int, *key: int | str) -> torch.Tensor:
        """Labels (count,) of samples: each class has its share of ``split``, in random order."""
        counts = torch.bincount(self.labels[split], minlength=len(self.names)).tolist()
        shares = torch.tensor(apportion(count, counts))
        labels = torch.arange(len(self.names)).repeat_interleave(shares)
        return labels[torch.randperm(count, generator=generator(seed, *key, "classes"))]

    def of_fakes(self, count: int, seed: int, iteration: int) -> torch.Tensor:
        """Labels (count,) of the latents that stage generate draws.

        They follow from the seed and the training set, so that no file has to hold them.
        """
        return self.drawn("train", count, seed, "generate", iteration)

    def numbers(self, names: Sequence[str], where: Path) -> torch.Tensor:
        """Labels (N,) of classes by name; UserError, which names ``where``, if one is unknown."""
        known = {name: k for k, name in enumerate(self.names)}
        if unknown := set(names) - known.keys():
            raise UserError(f"{where}: class {min(unknown)} is unknown; remake it with `dvc repro`")
        return torch.tensor([known[name] for name in names], dtype=torch.int64)


def number_of(classes: Classes | None) -> int:
    """How many there are, 0 where images have no class."""
    return len(classes.names) if classes else 0


def label_rows(dataset: Dataset, latents: Mapping[str, int]) -> Classes:
    """Of as many latents of each split, variant by variant of its images."""
    names = tuple(sorted(set(dataset.classes)))
    number = torch.tensor([names.index(name) for name in dataset.classes])
    labels = {}
    for split, count in latents.items():
        rows = torch.from_numpy(dataset.rows(split))
        labels[split] = number[rows].repeat(count // len(rows))
    return Classes(names, labels)


def save_classes(folder: Path, classes: Classes) -> None:
    save_torch(folder / FILE, {"names": list(classes.names), "labels": dict(classes.labels)})


def load_classes(folder: Path) -> Classes | None:
    """Those of the latents in ``folder``, None where they have none; UserError if damaged."""
    path = folder / FILE
    if not path.exists():
        return None

    def build(content: dict[str, Any]) -> Classes:
        names, labels = content["names"], content["labels"]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < max(2, len(names)):
            raise ValueError("its names are not two or more different ones")
        for split in ("train", "val", "test"):
            of_split = labels[split]
            if of_split.dtype != torch.int64 or of_split.ndim != 1 or len(of_split) == 0:
                raise ValueError(f"its labels of {split} are no row of int64")
            if int(of_split.min()) < 0 or int(of_split.max()) >= len(names):
                raise ValueError(f"a label of {split} names no class")
        return Classes(tuple(names), labels)

    return load_model(path, "set of classes", build)

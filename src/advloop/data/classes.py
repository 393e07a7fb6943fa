"""The classes of images and of their latents: names, labels, and how many samples each gets.

A run has classes if ``data.classes`` says so: stage encode_dataset then writes FILE beside the
latents. Without that file nothing has a class, and no stage draws or writes anything else.

Captions (``data.captions``) are classes, too: each distinct one has a label, which the diffusion
model gets as the embedding of its text. As nearly every image has its own, nothing is scored by
caption, and no discriminator learns them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.core.files import load_model, save_torch
from advloop.core.random import generator
from advloop.data.dataset import Dataset
from advloop.data.shares import apportion

FILE = "classes.pt"


@dataclass(frozen=True)
class Classes:
    """names: sorted; label k stands for names[k].

    labels: by split, (N,) int64, one per row of train.pt, val.pt and test.pt. captions: whether the
    names are captions.
    """

    names: tuple[str, ...]
    labels: Mapping[str, torch.Tensor]
    captions: bool = False

    def labels_of(self, split: str, latents: torch.Tensor) -> torch.Tensor:
        """Labels (N,) of a split's latents (N, C, H, W); UserError if their numbers differ."""
        labels = self.labels[split]
        if len(labels) != len(latents):
            raise UserError(
                f"{FILE}: {len(labels)} labels of {split} for {len(latents)} latents; remake both "
                "with `dvc repro`"
            )
        return labels

    def sample_labels(self, split: str, count: int, seed: int, *key: int | str) -> torch.Tensor:
        """Labels (count,) for samples, in random order, with the class shares of ``split``.

        Captions are those of random images, each of which comes again only after all others: shares
        of so many would round to those of the first ones.
        """
        if self.captions:
            own, stream = self.labels[split], generator(seed, *key, "captions")
            rounds = math.ceil(count / len(own))
            rows = torch.cat([torch.randperm(len(own), generator=stream) for _ in range(rounds)])
            return own[rows[:count]]
        counts = torch.bincount(self.labels[split], minlength=len(self.names)).tolist()
        shares = torch.tensor(apportion(count, counts))
        labels = torch.arange(len(self.names)).repeat_interleave(shares)
        return labels[torch.randperm(count, generator=generator(seed, *key, "classes"))]

    def fake_labels(self, count: int, seed: int, iteration: int) -> torch.Tensor:
        """Labels (count,) of the fakes of an iteration.

        They follow from the seed and the training set, so that no file has to hold them.
        """
        return self.sample_labels("train", count, seed, "generate", iteration)

    def to_labels(self, names: Sequence[str], path: Path) -> torch.Tensor:
        """Labels (N,) of class names read from ``path``; UserError if one is unknown."""
        known = {name: k for k, name in enumerate(self.names)}
        if unknown := set(names) - known.keys():
            raise UserError(f"{path}: unknown class {min(unknown)}; remake it with `dvc repro`")
        return torch.tensor([known[name] for name in names], dtype=torch.int64)


def count_classes(classes: Classes | None) -> int:
    """The number of classes, or of captions; 0 if there are none."""
    return len(classes.names) if classes else 0


def without_captions(classes: Classes | None) -> Classes | None:
    """The classes that a discriminator knows and that are scored one by one: no captions."""
    return None if classes is None or classes.captions else classes


def names_of(conditions: Iterable[str]) -> tuple[str, ...]:
    """The classes or captions of images in the order of their labels."""
    return tuple(sorted(set(conditions)))


def label_latents(dataset: Dataset, counts: Mapping[str, int]) -> Classes:
    """Labels for ``counts`` latents of each split: every augmentation of its images in turn."""
    names = names_of(dataset.conditions)
    label_of = {name: label for label, name in enumerate(names)}
    image_labels = torch.tensor([label_of[name] for name in dataset.conditions])
    labels = {}
    for split, count in counts.items():
        rows = torch.from_numpy(dataset.rows(split))
        labels[split] = image_labels[rows].repeat(count // len(rows))
    return Classes(names, labels, captions=bool(dataset.captions))


def save_classes(folder: Path, classes: Classes) -> None:
    content: dict[str, Any] = {"names": list(classes.names), "labels": dict(classes.labels)}
    save_torch(folder / FILE, content | ({"captions": True} if classes.captions else {}))


def load_classes(folder: Path) -> Classes | None:
    """The classes of the latents in ``folder``, or None; UserError if the file is damaged."""
    path = folder / FILE
    if not path.exists():
        return None

    def build(content: dict[str, Any]) -> Classes:
        names, labels = content["names"], content["labels"]
        captions = bool(content.get("captions", False))
        fewest = max(1 if captions else 2, len(names))
        if not all(isinstance(name, str) for name in names) or len(set(names)) < fewest:
            raise ValueError("it needs two or more different names")
        for split in ("train", "val", "test"):
            values = labels[split]
            if values.dtype != torch.int64 or values.ndim != 1 or len(values) == 0:
                raise ValueError(f"its labels of {split} are not (N,) int64")
            if int(values.min()) < 0 or int(values.max()) >= len(names):
                raise ValueError(f"a label of {split} has no name")
        return Classes(tuple(names), labels, captions)

    return load_model(path, "set of classes", build)

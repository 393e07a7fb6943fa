"""Which files of a diffusers folder hold its weights, and whether they hold what they should.

Nothing in them is executed: safetensors cannot hold code, and of a ``.bin`` file, which is a
pickle, tensors alone are read.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

STEM = "diffusion_pytorch_model"  # of diffusers; that of transformers is ``model``
# One file, or the index of several: a variant stands before the last part of either name.
ONE = r"{}(?:\.(\w+))?\.(safetensors|bin)"
INDEX = r"{}\.(safetensors|bin)\.index(?:\.(\w+))?\.json"
VARIANTS = (None, "fp32", "fp16", "bf16")  # by precision; any other comes after them
POINTER = b"version https://git-lfs"  # the first bytes of a file that git-lfs has not fetched


class WeightFiles(NamedTuple):
    """The weights of a folder in the terms of ``from_pretrained``."""

    file: Path  # the only file, or the index of several
    kind: str  # safetensors or bin
    variant: str | None

    @property
    def sharded(self) -> bool:
        return self.file.suffix == ".json"


def find_weights(folder: Path, stem: str = STEM) -> WeightFiles:
    """The weights to load: the most precise that are there, and rather safetensors than a pickle.

    stem: how their names begin.
    ValueError if there are none, or if their files are damaged or hold more than tensors.
    """
    found = []
    for file in sorted(folder.iterdir()):
        if match := re.fullmatch(ONE.format(stem), file.name):
            found.append(WeightFiles(file, match[2], match[1]))
        elif match := re.fullmatch(INDEX.format(stem), file.name):
            found.append(WeightFiles(file, match[1], match[2]))
    if not found:
        raise ValueError(f"it holds no {stem}.safetensors")
    weights = min(found, key=_preference)
    _check(weights)
    return weights


def read_tensors(weights: WeightFiles) -> dict[str, torch.Tensor]:
    """All tensors of safetensors that ``find_weights`` found, by name."""
    from safetensors.torch import load_file

    if not weights.sharded:
        return load_file(weights.file)
    shards = sorted(set(json.loads(weights.file.read_text())["weight_map"].values()))
    return {k: v for shard in shards for k, v in load_file(weights.file.parent / shard).items()}


def _preference(weights: WeightFiles) -> tuple[int, bool, bool]:
    known = weights.variant in VARIANTS
    precision = VARIANTS.index(weights.variant) if known else len(VARIANTS)
    return precision, weights.kind == "bin", not weights.sharded  # diffusers prefers an index, too


def _check(weights: WeightFiles) -> None:
    """Raise ValueError unless each file holds just the tensors that it should.

    diffusers believes an index, and leaves a tensor that its file lacks without values.
    """
    if not weights.sharded:
        _names(weights.file)
        return
    try:
        names: Mapping[str, str] = json.loads(weights.file.read_text())["weight_map"]
        shards = sorted(set(names.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{weights.file.name} is no index of weights") from None
    for shard in shards:
        file = weights.file.parent / shard
        if Path(shard).name != shard or file.suffix != f".{weights.kind}":
            raise ValueError(
                f"{weights.file.name} names {shard!r}, which is no .{weights.kind} file beside it"
            )
        if not file.is_file():
            raise ValueError(f"{weights.file.name} names {shard}, which is missing")
        if _names(file) != {name for name, place in names.items() if place == shard}:
            raise ValueError(f"{shard} does not hold the tensors that {weights.file.name} names")


def _names(file: Path) -> set[str]:
    """Names of the tensors in a file; ValueError if it is damaged or holds anything else."""
    from safetensors import SafetensorError, safe_open

    with file.open("rb") as opened:
        if opened.read(len(POINTER)) == POINTER:
            raise ValueError(f"{file.name} is a pointer of git-lfs: fetch it by `git lfs pull`")
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as tensors:
                return set(tensors.keys())
        mapped = zipfile.is_zipfile(file)  # torch.save's older format is read as a whole
        content = torch.load(file, weights_only=True, map_location="cpu", mmap=mapped)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{file.name} is refused, since it holds more than tensors or is damaged: save the "
            "model as safetensors where you trust it"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{file.name} is damaged: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{file.name} holds a {type(content).__name__}, not tensors by name")
    return set(content)

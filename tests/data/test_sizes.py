"""Too few images for the run's parameters are refused before anything is trained."""

from __future__ import annotations

from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st
from properties import bounded, result
from refusal import refusal

from advloop.data import sizes
from advloop.data.dataset import Dataset
from advloop.data.draws import draw_reals
from advloop.data.manifests import Item
from advloop.data.shares import apportion
from advloop.data.sizes import check_sizes
from advloop.params.loader import Params
from advloop.params.reading import read_mapping
from advloop.params.training import TrainDiscParams
from advloop.training.discriminator_data import Fakes, Reals, make_sides


@cache
def committed() -> dict[str, Any]:
    content: dict[str, Any] = read_mapping(REPO / "params.yaml")
    return content


def params_with(**changes: object) -> Params:
    """params.yaml with other values; ``evaluate__num_seeds`` stands for evaluate.num_seeds."""
    content = deepcopy(committed())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        assert name in content[section]
        content[section][name] = value
    return Params(content, Path("params.yaml"))


def images(**counts: int) -> tuple[list[Item], list[str]]:
    """Items and splits; ``train_day=3`` are three of class day."""
    items, splits = [], []
    for key, count in counts.items():
        split, _, name = key.partition("_")
        items += [Item(f"{key}/{k}", f"{key}{k}", class_name=name or None) for k in range(count)]
        splits += [split] * count
    return items, splits


LONG = {"base__pretrained": None, "base__samples_per_epoch": None, "base__epochs": 2}


@pytest.mark.parametrize(
    ("counts", "changes", "says"),
    [
        ({"train": 17, "val": 9}, {}, "evaluate.num_seeds=3 needs 18 training images"),
        ({"train": 59, "val": 9}, {"evaluate__num_seeds": 10}, "there are 59"),
        (
            {"train": 40, "val": 9},
            {**LONG, "base__batch_size": 999, "base__warmup_steps": 2},
            "base.warmup_steps=2 leaves nothing of the training, which has 2 steps",
        ),
        (
            {"train": 40, "val": 9},
            {
                "objective__name": "none",
                "train_diffusion__samples_per_epoch": None,
                "train_diffusion__epochs": 1,
                "train_diffusion__batch_size": 40,
                "train_diffusion__warmup_steps": 8,
                "encode_dataset__augment": "dihedral",
            },
            "train_diffusion.warmup_steps=8 leaves nothing",
        ),
        (
            {"train_day": 99, "train_night": 1, "val_night": 9},
            {"generate__num_samples": 10},
            "generate.num_samples=10 leaves no validation pair",
        ),
    ],
)
def test_number_of_images_that_a_later_stage_cannot_use_is_refused(counts, changes, says):
    assert says in refusal(check_sizes, params_with(**changes), *images(**counts))


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ({"train": 18, "val": 1}, {}),
        ({"train": 60, "val": 9}, {"evaluate__num_seeds": 10}),
        ({"train": 40, "val": 9}, {**LONG, "base__batch_size": 40, "base__warmup_steps": 1}),
        ({"train": 40, "val": 9}, {"base__warmup_steps": 9999}),  # the base model is imported
        ({"train": 40, "val": 1}, {"generate__num_samples": 3}),
        ({"train_day": 99, "train_night": 1, "val_night": 9}, {"generate__num_samples": 100}),
    ],
)
def test_number_of_images_that_is_just_enough_is_taken(counts, changes):
    check_sizes(params_with(**changes), *images(**counts))


SIZES = st.lists(st.integers(0, 12), min_size=3, max_size=3)


@bounded(40)
@given(SIZES.filter(any), SIZES.filter(any), st.integers(3, 60))
def test_pairs_are_counted_as_the_discriminator_will_have_them(train, val, num):
    train = [max(a, b > 0) for a, b in zip(train, val, strict=True)]  # it has every class
    splits = ["train"] * sum(train) + ["val"] * sum(val)
    classes = [c for counts in (train, val) for c in range(3) for _ in range(counts[c])]
    files = [str(row) for row in range(len(splits))]
    dataset = Dataset(np.empty(0, np.uint8), files, files, splits, list(map(str, classes)))
    rows = draw_reals(dataset, num, 0, 0).tolist()
    reals = Reals(
        torch.zeros(len(rows), 1, 1, 1),
        [splits[row] for row in rows],
        torch.tensor([classes[row] for row in rows]),
    )
    labels = torch.arange(3).repeat_interleave(torch.tensor(apportion(num, train)))
    fakes = Fakes(torch.zeros(num, 1, 1, 1), labels=labels)
    settings = TrainDiscParams.model_validate(committed()["train_disc"])
    made = result(lambda: make_sides(reals, fakes, settings, 0, 0, torch.device("cpu")))
    numbers = {f"train_{c}": train[c] for c in range(3)} | {f"val_{c}": val[c] for c in range(3)}
    check = partial(check_sizes, params_with(generate__num_samples=num))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "_check_sets", lambda *_: None)
        assert (result(lambda: check(*images(**numbers)) or True) is None) == (made is None)

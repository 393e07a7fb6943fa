"""Split images into four disjoint sets, by group and never by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from advloop.core.errors import UserError, counted
from advloop.data.dataset import SPLITS
from advloop.data.manifests import Item
from advloop.params.evaluation import MIN_IMAGES

MIN_GROUPS = 5
MIN_TEST_GROUPS = 2  # a critic trains on some and judges by the others
MIN_OTHERS = 2  # images of other groups: a distance is also measured without each group


def assign_splits(
    items: Sequence[Item],
    val_fraction: float,
    test_fraction: float,
    tune_fraction: float,
    seed: int,
) -> list[str]:
    """The split (train, val, tune or test) of every item; all items of a group share one.

    train: autoencoder, diffusion model and discriminator learn from it. val: validates the
    discriminator and the losses during training. tune: chooses between finished models. test:
    only for the reported metrics.

    Splits that the source gives are kept. Those it lacks are drawn by whole groups: test until
    it has ``test_fraction`` of all images, val until ``val_fraction`` of the images outside
    test, tune until ``tune_fraction`` of those in test. If images have classes, each split gets
    its share of every class; a class with too few groups goes to train first.

    Raises UserError if a group is in two splits, if there are too few groups, or too few images
    for tune or test, and if train has no image of a class.
    """
    sizes = Counter(item.group for item in items)
    if len(sizes) < MIN_GROUPS:
        by_folder = all(PurePosixPath(i.file).parent.as_posix() == i.group for i in items)
        why = "a sub-folder is one group, however many images it holds: " if by_folder else ""
        raise UserError(
            f"data.source: {counted(len(sizes), 'group')} of images "
            f"({', '.join(sorted(sizes)[:5])}), at least {MIN_GROUPS} are needed to split by "
            f"group; {why}use more sub-folders, put unrelated images outside of "
            "any, or add a manifest.csv"
        )
    split: dict[str, str] = {}
    for item in items:
        if item.split is not None and split.setdefault(item.group, item.split) != item.split:
            raise UserError(
                f"data.source: group {item.group} is in both {split[item.group]} and "
                f"{item.split}; neighbours would leak, so give the group one split"
            )
    groups = sorted(sizes)
    order = [groups[i] for i in np.random.default_rng([seed, 0]).permutation(len(groups))]
    order = _interleave_classes(order, {item.group: item.class_name for item in items})

    def draw(name: str, wanted: float, pool: list[str], least: int = 1, left: int = 1) -> None:
        """Move at least ``least`` groups of the pool to a split; ``left`` of them stay."""
        taken = 0
        for count, group in enumerate(pool[: max(0, len(pool) - left)]):
            if taken >= wanted and count >= least:
                break
            split[group] = name
            taken += sizes[group]

    if "test" not in split.values():
        least = MIN_TEST_GROUPS + ("tune" not in split.values())
        draw("test", test_fraction * len(items), [g for g in order if g not in split], least)
    if "val" not in split.values():
        rest = [g for g in order if split.get(g) in (None, "train")]
        draw("val", val_fraction * sum(sizes[g] for g in rest), rest)
    if "tune" not in split.values():
        held_out = [g for g in order if split.get(g) == "test"]
        wanted = tune_fraction * sum(sizes[g] for g in held_out)
        draw("tune", wanted, held_out, left=MIN_TEST_GROUPS)
    result = [split.get(item.group, "train") for item in items]
    for name in SPLITS:
        if name not in result:
            raise UserError(f"data.source: no group is left for the {name} split; add groups")
    _check_held_out(items, result, test_fraction)
    trained = {i.class_name for i, name in zip(items, result, strict=True) if name == "train"}
    if absent := {item.class_name for item in items} - trained:
        raise UserError(
            f"data.source: no image of class {min(map(str, absent))} is in the train split; add "
            "groups of that class, or name the splits in a manifest.csv"
        )
    return result


def _interleave_classes(groups: list[str], class_of: Mapping[str, str | None]) -> list[str]:
    """Reorder groups so that any stretch of them has its share of every class.

    Group k of the n groups of a class moves to position (k + 1/2) / n of the whole. A class with
    one group ends up in the middle, which becomes train. Without classes the order stays.
    """
    sizes = Counter(class_of[group] for group in groups)
    before: Counter[str | None] = Counter()
    positions = {}
    for group in groups:
        name = class_of[group]
        positions[group] = (before[name] + 0.5) / sizes[name]
        before[name] += 1
    return sorted(groups, key=positions.__getitem__)


def _check_held_out(items: Sequence[Item], splits: list[str], test_fraction: float) -> None:
    for name in ("tune", "test"):
        if (count := splits.count(name)) < MIN_IMAGES:
            raise UserError(
                f"data.source: the {name} split has {counted(count, 'image')}, evaluation needs "
                f"{MIN_IMAGES}; raise data.test_fraction={test_fraction} or add images"
            )
    groups = [item.group for item, split in zip(items, splits, strict=True) if split == "test"]
    if len(set(groups)) < MIN_TEST_GROUPS:
        raise UserError(
            f"data.source: the test split has {counted(len(set(groups)), 'group')} after tune has "
            f"taken its share, evaluation needs {MIN_TEST_GROUPS}; put more groups into test"
        )
    if problem := jackknife_problem(groups):
        raise UserError(f"data.source: the test split {problem}; put more groups into test")


def jackknife_problem(groups: Sequence[str]) -> str | None:
    """Why test images of these groups, one entry each, cannot do without each group in turn."""
    largest, count = Counter(groups).most_common(1)[0]
    if (others := len(groups) - count) >= MIN_OTHERS:
        return None
    images = counted(count, "image")
    return f"has {images} of {largest} and {others} of other groups, {MIN_OTHERS} are needed"


def class_lines(items: Sequence[Item], splits: Sequence[str]) -> list[str]:
    """One line per class: its images in each split, and a hint if a split has none."""
    pairs = zip(items, splits, strict=True)
    counts = Counter((item.class_name, split) for item, split in pairs if item.class_name)
    lines = []
    for name in sorted({name for name, _ in counts}):
        parts = ", ".join(f"{counts[name, split]} {split}" for split in SPLITS)
        lines.append(f"class {name}: {parts}")
        if absent := [split for split in SPLITS if not counts[name, split]]:
            lines[-1] += f"; none in {', '.join(absent)}: add groups"
    return lines

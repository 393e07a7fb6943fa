"""Four disjoint sets of images, split by group and never by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from advloop.core.errors import UserError
from advloop.manifest import SPLITS
from advloop.params.evaluation import MIN_IMAGES
from advloop.preparation.sources import Item

MIN_GROUPS = 5
MIN_TEST_GROUPS = 2  # a critic is trained on some and judges the others


def assign_splits(
    items: Sequence[Item],
    val_fraction: float,
    test_fraction: float,
    tune_fraction: float,
    seed: int,
) -> list[str]:
    """A split (train, val, tune, test) for every item, the same for all items of a group.

    train: the autoencoder, the diffusion model and the discriminator learn from it.
    val: judges discriminator and losses while they train. tune: chooses between finished
    models. test: the figures alone.

    A split that the source gives is kept, but where it names no val group, some of its
    train groups become val, and where it names no tune group, some of its test groups
    become tune. What is missing is drawn by whole groups: test until ``test_fraction`` of
    all images, val until ``val_fraction`` of those that are not test, tune until
    ``tune_fraction`` of those that are. Where images have classes, each split has its
    share of the groups of each, and train comes first where there are too few. Raises
    UserError when a group stands in two splits, where there are too few groups, or too few
    images for tune or test, and where train has no image of a class.
    """
    sizes = Counter(item.group for item in items)
    if len(sizes) < MIN_GROUPS:
        raise UserError(
            f"data.source: {len(sizes)} group(s) of images ({', '.join(sorted(sizes)[:5])}), "
            f"at least {MIN_GROUPS} are needed to split by group; use sub-folders or a manifest.csv"
        )
    split: dict[str, str] = {}
    for item in items:
        if item.split is not None and split.setdefault(item.group, item.split) != item.split:
            raise UserError(
                f"data.source: group {item.group} stands in both {split[item.group]} and "
                f"{item.split}; neighbours would leak, so give the group one split"
            )
    groups = sorted(sizes)
    order = [groups[i] for i in np.random.default_rng([seed, 0]).permutation(len(groups))]
    order = _spread_classes(order, {item.group: item.label for item in items})

    def draw(name: str, wanted: float, pool: list[str], least: int = 1, left: int = 1) -> None:
        """Move groups of pool to a split: at least ``least``, and ``left`` of them stay."""
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
    trained = {item.label for item, name in zip(items, result, strict=True) if name == "train"}
    if absent := {item.label for item in items} - trained:
        raise UserError(
            f"data.source: no image of class {min(map(str, absent))} is in the train split; add "
            "groups of that class, or name the splits in a manifest.csv"
        )
    return result


def _spread_classes(groups: list[str], label: Mapping[str, str | None]) -> list[str]:
    """Every class spread evenly over the order, so that any stretch has its share of each.

    Of n groups of a class the k-th stands at (k + 1/2) / n of the way; a class of one group
    stands in the middle, which is train's. Without classes nothing changes.
    """
    sizes = Counter(label[group] for group in groups)
    before: Counter[str | None] = Counter()
    places = {}
    for group in groups:
        name = label[group]
        places[group] = (before[name] + 0.5) / sizes[name]
        before[name] += 1
    return sorted(groups, key=places.__getitem__)


def _check_held_out(items: Sequence[Item], splits: list[str], test_fraction: float) -> None:
    for name in ("tune", "test"):
        if (count := splits.count(name)) < MIN_IMAGES:
            raise UserError(
                f"data.source: the {name} split has {count} image(s), evaluation needs "
                f"{MIN_IMAGES}; raise data.test_fraction={test_fraction} or add images"
            )
    groups = {item.group for item, split in zip(items, splits, strict=True) if split == "test"}
    if len(groups) < MIN_TEST_GROUPS:
        raise UserError(
            f"data.source: the test split has {len(groups)} group(s) after tune has taken its "
            f"share, evaluation needs {MIN_TEST_GROUPS}; put more groups into test"
        )


def class_lines(items: Sequence[Item], splits: Sequence[str]) -> list[str]:
    """What a run says of its classes: how many images, and which a split has none of."""
    counts = Counter((str(i.label), s) for i, s in zip(items, splits, strict=True) if i.label)
    names = sorted({name for name, _ in counts})
    lines = []
    for name in names:
        parts = ", ".join(f"{counts[name, split]} {split}" for split in SPLITS)
        lines.append(f"class {name}: {parts}")
        if absent := [split for split in SPLITS if not counts[name, split]]:
            lines[-1] += f"; none to look at in {' and '.join(absent)}: add groups"
    return lines

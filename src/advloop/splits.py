"""Three disjoint sets of images, split by group and never by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from advloop.errors import UserError
from advloop.params.evaluation import MIN_IMAGES
from advloop.sources import SPLITS, Item

MIN_GROUPS = 5


def assign_splits(
    items: Sequence[Item], val_fraction: float, test_fraction: float, seed: int
) -> list[str]:
    """A split (train, val, test) for every item, the same for all items of a group.

    train: the autoencoder, the diffusion model and the discriminator learn from it.
    val: judges discriminator and losses while they train. test: evaluation only.

    A split that the source gives is kept, but where it names no val group, some of its
    train groups become val. What is missing is drawn by whole groups: test until
    ``test_fraction`` of all images, then val until ``val_fraction`` of the images that
    are not test. Raises UserError when a group stands in two splits, there are fewer
    than MIN_GROUPS groups, or fewer than MIN_IMAGES images for test.
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

    def draw(name: str, wanted: float, pool: list[str]) -> None:
        taken = 0
        for group in pool[:-1]:  # one group always stays behind
            if taken >= wanted:
                break
            split[group] = name
            taken += sizes[group]

    if "test" not in split.values():
        draw("test", test_fraction * len(items), [g for g in order if g not in split])
    if "val" not in split.values():
        rest = [g for g in order if split.get(g) in (None, "train")]
        draw("val", val_fraction * sum(sizes[g] for g in rest), rest)
    result = [split.get(item.group, "train") for item in items]
    for name in SPLITS:
        if name not in result:
            raise UserError(f"data.source: no group is left for the {name} split; add groups")
    if result.count("test") < MIN_IMAGES:
        raise UserError(
            f"data.source: the test split has {result.count('test')} image(s), evaluation needs "
            f"{MIN_IMAGES}; raise data.test_fraction={test_fraction} or add images"
        )
    return result

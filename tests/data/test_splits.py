"""Images are split by group: what leaks would make every later number worthless."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from conftest import REPO
from refusal import refusal

from advloop.data.listing import list_items
from advloop.data.manifests import Item
from advloop.data.sources import open_source
from advloop.data.splits import MIN_GROUPS, assign_splits, class_lines

FRACTIONS = 0.2, 0.2, 0.4  # val, test, tune


def make_items(groups, size=6, **given):
    """``groups`` groups g0, g1, … of ``size`` images; ``given`` maps groups to their split."""
    names = [(f"g{g}", i) for g in range(groups) for i in range(size)]
    return [Item(f"{group}/{i}.png", group, given.get(group)) for group, i in names]


def split(items, seed=0):
    """The split of each group; fails if a group has two."""
    groups = [item.group for item in items]
    pairs = set(zip(groups, assign_splits(items, *FRACTIONS, seed), strict=True))
    assert len(pairs) == len(set(groups))
    return dict(pairs)


def groups_of(found, *splits):
    return {group for group, name in found.items() if name in splits}


# --- Shares ---


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [MIN_GROUPS, 17, 100])
def test_no_image_group_stands_on_both_sides_of_the_split(groups, seed):
    found = split(make_items(groups), seed)
    assert set(found.values()) == {"train", "val", "tune", "test"}
    assert len(groups_of(found, "test")) >= 2


@pytest.mark.parametrize("sizes", [[10] * 100, [1 + g % 7 for g in range(40)]])
@pytest.mark.parametrize("val", [0.2, 0.25])
def test_a_share_is_overshot_by_less_than_one_group(sizes, val):
    items = [Item(f"g{g}/{i}.png", f"g{g}") for g, size in enumerate(sizes) for i in range(size)]
    counts = Counter(assign_splits(items, val, 0.2, 0.4, 3))
    assert counts.total() == len(items)
    held_out = counts["test"] + counts["tune"]
    assert 0 <= held_out - 0.2 * len(items) < max(sizes)
    assert 0 <= counts["tune"] - 0.4 * held_out < max(sizes)
    assert 0 <= counts["val"] - val * (len(items) - held_out) < max(sizes)


@pytest.mark.parametrize("seed", range(6))
def test_huge_last_group_is_left_to_train(seed):
    items = make_items(3, g0="test", g1="test", g2="test")
    items += [Item("small.png", "small"), *(Item(f"huge/{i}.png", "huge") for i in range(100))]
    assert {"train", "val"} <= set(assign_splits(items, 0.5, 0.2, 0.4, seed))


def test_splits_depend_on_the_seed_and_not_on_the_order_of_items():
    items = make_items(50)
    assert split(items, 7) == split(items[::-1], 7) != split(items, 8)


@pytest.mark.parametrize("seed", range(3))
def test_the_tune_share_changes_neither_train_nor_val(seed):
    """Models that were trained on one split may be evaluated with another tune_fraction."""
    items = make_items(30)
    small, large = (assign_splits(items, 0.2, 0.2, share, seed) for share in (0.1, 0.7))
    assert small != large
    learnt = [[s if s in ("train", "val") else "held out" for s in one] for one in (small, large)]
    assert learnt[0] == learnt[1]


# --- Splits that the source gives ---


def test_splits_that_the_source_gives_are_kept():
    given = {"g0": "test", "g1": "val", "g2": "tune", "g3": "test", "g4": "train"}
    assert split(make_items(5, **given)) == given


@pytest.mark.parametrize("seed", range(4))
def test_given_test_and_val_groups_stay_the_only_ones(seed):
    found = split(make_items(20, g3="test", g8="test", g9="test"), seed)
    assert groups_of(found, "tune", "test") == {"g3", "g8", "g9"}
    assert len(groups_of(found, "test")) == 2
    assert groups_of(found, "val")
    found = split(make_items(20, g3="val", g8="val"), seed)
    assert groups_of(found, "val") == {"g3", "g8"}
    assert groups_of(found, "test")


def test_split_given_for_one_image_holds_for_its_whole_group():
    items = make_items(6)
    items[4] = replace(items[4], split="val")
    assert groups_of(split(items), "val") == {items[4].group}


def test_embedded_floor_plans_keep_their_test_split_and_gain_a_val_split():
    items = list_items(open_source(REPO / "data" / "freedoom_plans.zip"))
    assert len(items) == 2227
    assert len(split(items)) == 99
    splits = assign_splits(items, *FRACTIONS, 0)
    counts = Counter(splits)
    assert counts["test"] + counts["tune"] == 409
    assert counts["tune"] >= 0.4 * 409
    assert [name in ("tune", "test") for name in splits] == [i.split == "test" for i in items]
    assert 0.15 < counts["val"] / (counts["val"] + counts["train"]) < 0.25


# --- Refusals ---


def alternating(*given):
    return make_items(6, **{f"g{g}": given[g % len(given)] for g in range(6)})


FEW_OTHERS = [*make_items(7, 6, g3="tune", g4="test"), Item("single.png", "single", "test")]
TWO_SPLITS = [*make_items(6, g2="train"), Item("g2/other.png", "g2", "test")]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (
            make_items(1, 90),
            ["1 group ", "g0", "at least 5", "a sub-folder is one group, however"],
        ),
        (make_items(MIN_GROUPS - 1), ["4 groups", "g0", "at least 5"]),
        (make_items(MIN_GROUPS, 1), ["tune split has 1 image,", "data.test_fraction=0.2"]),
        (make_items(8, g3="tune", g4="test"), ["test split has 1 group ", "needs 2"]),
        (FEW_OTHERS, ["test split has 6 images of g4 and 1 of other groups, 2 are needed; put"]),
        (TWO_SPLITS, ["group g2 is in both train and test"]),
        (alternating("val", "test"), ["no group is left for the train split"]),
        (alternating("train", "val"), ["no group is left for the tune split"]),  # part of test
        (alternating("test"), ["no group is left for the train split"]),
    ],
)
def test_too_few_groups_and_contradictions_are_refused_in_one_line(items, says):
    message = refusal(assign_splits, items, *FRACTIONS, 0)
    assert [part for part in says if part not in message] == [], message


# --- Classes ---


def items_of(**groups):
    """Six images of each group; class by class, ``groups`` of each."""
    found = [(name, f"{name}/{g}") for name, count in groups.items() for g in range(count)]
    return [Item(f"{group}/{k}.png", group, None, name) for name, group in found for k in range(6)]


def imbalance(items, seed):
    """Largest difference of a split's images by day and by night; the file names the class."""
    splits = assign_splits(items, *FRACTIONS, seed)
    counts = Counter((item.file[0], name) for item, name in zip(items, splits, strict=True))
    return max(abs(counts["d", s] - counts["n", s]) for s in ("train", "val", "tune", "test"))


def test_each_split_has_its_share_of_every_class():
    items = items_of(day=20, night=20)
    assert all(imbalance(items, seed) <= 6 for seed in range(5)), "a group at most"
    without = [replace(item, class_name=None) for item in items]
    assert any(imbalance(without, seed) > 6 for seed in range(5))
    for seed in range(5):
        splits = assign_splits(items + items_of(rare=1), *FRACTIONS, seed)
        assert splits[-1] == "train", "a class of one group is learnt before it is measured"


def test_class_that_nothing_can_learn_is_refused_and_one_that_is_not_measured_is_named():
    given = {"0": "test", "1": "tune", "2": "val"}
    items = [
        replace(i, split=given.get(i.group.split("/")[1], "train")) for i in items_of(a=9, b=9)
    ]
    rare = Item("rare/0.png", "rare/0", "test", "rare")
    assert "no image of class rare" in refusal(assign_splits, [*items, rare], *FRACTIONS, 0)
    splits = [item.split for item in items]
    *_, line = class_lines([*items, rare], [*splits, "train"])
    assert line == "class rare: 1 train, 0 val, 0 tune, 0 test; none in val, tune, test: add groups"
    assert class_lines([replace(i, class_name=None) for i in items], splits) == []

"""Images are split by group: what leaks would make every later number worthless."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from advloop.core.errors import UserError
from advloop.preparation.sources import Item, list_items, open_source
from advloop.preparation.splits import MIN_GROUPS, assign_splits

ROOT = Path(__file__).resolve().parent.parent


def make_items(groups: int, size: int = 6, **given: str) -> list[Item]:
    """``groups`` groups g0, g1, … of ``size`` images; ``given`` maps groups to their split."""
    return [
        Item(f"g{g}/{i}.png", f"g{g}", given.get(f"g{g}"))
        for g in range(groups)
        for i in range(size)
    ]


def splits_of_groups(items: list[Item], splits: list[str]) -> dict[str, set[str]]:
    result: dict[str, set[str]] = {}
    for item, split in zip(items, splits, strict=True):
        result.setdefault(item.group, set()).add(split)
    return result


def test_a_held_out_split_of_one_image_is_refused() -> None:
    items = make_items(MIN_GROUPS, size=1)
    with pytest.raises(UserError, match=r"tune split has 1 image\(s\).*data\.test_fraction=0\.2"):
        assign_splits(items, 0.2, 0.2, 0.4, seed=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [MIN_GROUPS, 17, 100])
def test_no_image_group_stands_on_both_sides_of_the_split(groups: int, seed: int) -> None:
    items = make_items(groups)
    splits = assign_splits(items, 0.2, 0.2, 0.4, seed)
    assert all(len(found) == 1 for found in splits_of_groups(items, splits).values())
    assert set(splits) == {"train", "val", "tune", "test"}
    held_out = {item.group for item, s in zip(items, splits, strict=True) if s == "test"}
    assert len(held_out) >= 2


def test_shares_are_about_what_was_asked_for() -> None:
    items = make_items(100, size=10)
    counts = Counter(assign_splits(items, 0.25, 0.2, 0.4, 0))
    assert 200 <= counts["test"] + counts["tune"] < 210
    assert 80 <= counts["tune"] < 90  # four tenths of them
    assert 200 <= counts["val"] < 210  # a quarter of the 800 images that are not test
    assert sum(counts.values()) == 1000


def test_groups_of_unequal_size_overshoot_a_share_by_less_than_one_group() -> None:
    items = [Item(f"g{g}/{i}.png", f"g{g}") for g in range(40) for i in range(1 + g % 7)]
    counts = Counter(assign_splits(items, 0.2, 0.2, 0.4, 3))
    wanted = 0.2 * len(items)
    held_out = counts["test"] + counts["tune"]
    assert wanted <= held_out < wanted + 7
    assert 0.4 * held_out <= counts["tune"] < 0.4 * held_out + 7
    rest = len(items) - held_out
    assert 0.2 * rest <= counts["val"] < 0.2 * rest + 7


def test_splits_that_the_source_gives_are_kept() -> None:
    given = {"g0": "test", "g1": "val", "g2": "tune", "g3": "test", "g4": "train"}
    items = make_items(5, **given)
    assert assign_splits(items, 0.2, 0.2, 0.4, 0) == [given[item.group] for item in items]


@pytest.mark.parametrize("seed", range(4))
def test_given_test_groups_stay_the_only_test_groups(seed: int) -> None:
    items = make_items(20, g3="test", g8="test", g9="test")
    found = splits_of_groups(items, assign_splits(items, 0.2, 0.2, 0.4, seed))
    held_out = {"tune", "test"}
    assert {group for group, splits in found.items() if splits <= held_out} == {"g3", "g8", "g9"}
    assert sum(splits == {"test"} for splits in found.values()) == 2
    assert {"val"} in found.values()


@pytest.mark.parametrize("seed", range(4))
def test_given_val_groups_stay_the_only_val_groups(seed: int) -> None:
    items = make_items(20, g3="val", g8="val")
    found = splits_of_groups(items, assign_splits(items, 0.2, 0.2, 0.4, seed))
    assert {group for group, splits in found.items() if splits == {"val"}} == {"g3", "g8"}
    assert {"test"} in found.values()


def test_split_given_for_one_image_holds_for_its_whole_group() -> None:
    items = make_items(6)
    items[4] = Item(items[4].file, items[4].group, "val")
    found = splits_of_groups(items, assign_splits(items, 0.2, 0.2, 0.4, 0))
    assert found[items[4].group] == {"val"}


def test_group_that_is_given_two_splits_is_refused_by_name() -> None:
    items = make_items(6, g2="train")
    items.append(Item("g2/other.png", "g2", "test"))
    with pytest.raises(UserError, match=r"group g2 stands in both train and test") as caught:
        assign_splits(items, 0.2, 0.2, 0.4, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("groups", [1, MIN_GROUPS - 1])
def test_fewer_than_five_groups_are_refused(groups: int) -> None:
    with pytest.raises(UserError, match=rf"{groups} group\(s\).*g0.*at least 5") as caught:
        assign_splits(make_items(groups), 0.2, 0.2, 0.4, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_the_tune_share_changes_neither_train_nor_val(seed: int) -> None:
    """Models that were trained on one split may be evaluated by another tune_fraction."""
    items = make_items(30)
    small, large = (assign_splits(items, 0.2, 0.2, share, seed) for share in (0.1, 0.7))
    assert small != large
    learnt = [[s if s in ("train", "val") else "held out" for s in one] for one in (small, large)]
    assert learnt[0] == learnt[1]


def test_source_of_too_few_test_groups_is_refused_with_the_number_that_is_needed() -> None:
    items = make_items(8, g3="tune", g4="test")
    with pytest.raises(UserError, match=r"test split has 1 group\(s\).*needs 2") as caught:
        assign_splits(items, 0.2, 0.2, 0.4, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("present", [("val", "test"), ("train", "val"), ("test",)])
def test_source_that_gives_every_group_away_is_refused(present: tuple[str, ...]) -> None:
    given = {f"g{g}": present[g % len(present)] for g in range(6)}
    missing = "tune" if "test" not in present else "train"  # tune is drawn from test
    with pytest.raises(UserError, match=f"no group is left for the {missing} split"):
        assign_splits(make_items(6, **given), 0.2, 0.2, 0.4, 0)


@pytest.mark.parametrize("seed", range(6))
def test_huge_last_group_is_left_to_train(seed: int) -> None:
    items = make_items(3, g0="test", g1="test", g2="test")
    items += [Item("small.png", "small"), *(Item(f"huge/{i}.png", "huge") for i in range(100))]
    assert {"train", "val"} <= set(assign_splits(items, 0.5, 0.2, 0.4, seed))


def test_splits_depend_on_the_seed_alone() -> None:
    items = make_items(50)
    first = assign_splits(items, 0.2, 0.2, 0.4, 7)
    assert assign_splits(items, 0.2, 0.2, 0.4, 7) == first
    assert assign_splits(items, 0.2, 0.2, 0.4, 8) != first


def test_order_of_the_items_changes_no_split() -> None:
    items = make_items(30)
    forward = splits_of_groups(items, assign_splits(items, 0.2, 0.2, 0.4, 1))
    backward = splits_of_groups(items[::-1], assign_splits(items[::-1], 0.2, 0.2, 0.4, 1))
    assert forward == backward


def test_embedded_floor_plans_keep_their_test_split_and_gain_a_val_split() -> None:
    items = list_items(open_source(ROOT / "data" / "freedoom_plans.zip"))
    assert len(items) == 2227
    assert len({item.group for item in items}) == 99
    splits = assign_splits(items, 0.2, 0.2, 0.4, 0)
    counts = Counter(splits)
    assert counts["test"] + counts["tune"] == 409
    assert counts["tune"] >= 0.4 * 409
    kept = [split in ("tune", "test") for split in splits]
    assert kept == [item.split == "test" for item in items]
    assert 0.15 < counts["val"] / (counts["val"] + counts["train"]) < 0.25
    assert all(len(found) == 1 for found in splits_of_groups(items, splits).values())

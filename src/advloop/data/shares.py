"""How many latents of a class, a split or a side there are. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence

VAL_SHARE = 0.2  # of a round's reals and of its fakes: validation's, the 80/20 split


def apportion(count: int, weights: Sequence[int]) -> list[int]:
    """Divide ``count`` in proportion to whole weights, at least one of them above 0.

    Hamilton's method of largest remainders; the earlier of two equal remainders wins. A share
    differs from the exact one by less than 1, and is at most its weight if
    count <= sum(weights).
    """
    total = sum(weights)
    shares = [count * weight // total for weight in weights]
    rest = [count * weight % total for weight in weights]
    order = sorted(range(len(weights)), key=lambda k: -rest[k])
    for k in order[: count - sum(shares)]:
        shares[k] += 1
    return shares


def count_reals(num: int, train: int, val: int) -> tuple[int, int]:
    """How many of a round's ``num`` reals are from train and from val, which have so many images.

    If val has fewer than its share, train fills the gap; if train has too few, all are used once.
    """
    from_val = min(round(num * VAL_SHARE), val)
    return min(num - from_val, train), from_val


def count_val_fakes(num_fake: int, train: int, val: int) -> int:
    """How many of the fakes validate a discriminator beside so many reals of both sides."""
    return round(num_fake * val / max(1, train + val))


def held_out_fakes(count: int) -> int:
    """How many of a round's ``count`` fakes, the first ones, validate and do not train."""
    return max(1, int(count * VAL_SHARE))

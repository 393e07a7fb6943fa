"""The pixel view: a pyramid that adds up, a distance that is known, and what it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from advloop.evaluation.pixels import (
    PATCHES,
    SCALE,
    PixelView,
    descriptors,
    double,
    halve,
    pyramid,
    wasserstein,
)


def images(seed: int, count: int = 60, side: int = 64, mean: float = 128.0) -> np.ndarray:
    """Blobs: noise of 8×8 cells, enlarged, on a grey."""
    stream = np.random.default_rng(seed)
    cells = torch.from_numpy(stream.normal(mean, 40, (count, 3, 8, 8)))
    large = F.interpolate(cells, (side, side), mode="bilinear")
    return large.movedim(1, 3).clamp(0, 255).numpy().astype(np.uint8)


def levels(view: PixelView, x: np.ndarray) -> list[float]:
    return [level.value for level in view.levels(x)]


@pytest.mark.parametrize(("side", "sides"), [(64, [64, 32, 16]), (16, [16]), (50, [50, 25])])
def test_levels_add_up_to_the_image(side, sides):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    levels = pyramid(x)
    assert [level.shape[2] for level in levels] == sides
    total = levels[-1]
    for level in reversed(levels[:-1]):
        total = level + double(total)
    torch.testing.assert_close(total, x)


def test_a_constant_image_stays_what_it_is_at_every_size():
    x = torch.full((1, 3, 32, 32), 0.7)
    torch.testing.assert_close(halve(x), torch.full((1, 3, 16, 16), 0.7))
    torch.testing.assert_close(double(halve(x)), x)


def test_patches_are_windows_of_the_image_they_are_of():
    """Images that say their own number at every pixel."""
    numbered = np.broadcast_to(np.arange(5)[:, None, None, None], (5, 16, 16, 3)).astype(np.uint8)
    (found,) = descriptors(numbered, torch.Generator().manual_seed(0))
    assert found.shape == (5 * 64, 3, 7, 7)
    expected = torch.arange(5).repeat_interleave(64).float() / 127.5 - 1
    torch.testing.assert_close(found, expected.view(-1, 1, 1, 1).expand_as(found))


def test_a_shift_of_all_colours_moves_the_coarsest_level_by_its_mean_projection():
    """A constant c added to every standardised value moves a projection by c times its sum."""
    real = images(0, side=16)
    view = PixelView(real, (), seed=0)
    (before,), (after,) = (levels(view, x) for x in (real, (real + 10).astype(np.uint8)))
    patches = descriptors(real, torch.Generator().manual_seed(0))[0]
    steps = (10 / 127.5 / view.scales[0]).expand_as(patches[:1]).flatten(1) @ view.directions
    # the unshifted distance is that of two draws of patches from the same images
    assert after == pytest.approx(SCALE * float(steps.abs().mean()), abs=2 * before)


def test_sets_of_one_distribution_are_near_and_damage_is_ordered():
    real, other = images(0), images(1)
    view = PixelView(real, (), seed=0)

    def distance(x: np.ndarray) -> float:
        return float(np.mean(levels(view, x)))

    near = distance(other)
    noise = np.random.default_rng(2).normal(size=other.shape)
    noisy = [np.clip(other + s * noise, 0, 255).astype(np.uint8) for s in (8, 32)]
    found = [distance(x) for x in (other, *noisy, images(1, mean=90.0))]
    assert near < found[1] < found[2]
    assert found[3] > 3 * near
    assert distance(other) == near  # its patches follow from the seed


def test_finest_level_sees_noise_and_the_coarsest_a_tint():
    real, other = images(0), images(1)
    view = PixelView(real, (), seed=0)
    clean = np.array(levels(view, other))
    noise = np.random.default_rng(2).normal(size=other.shape)
    noisy = np.array(levels(view, np.clip(other + 8 * noise, 0, 255).astype(np.uint8)))
    tint = np.array([40.0, 0.0, -40.0])
    tinted = np.array(levels(view, np.clip(other + tint, 0, 255).astype(np.uint8)))
    assert (noisy - clean).argmax() == 0
    assert (tinted - clean).argmax() == 2


def test_sets_of_two_sizes_are_compared_at_the_quantiles_of_the_smaller():
    """Of two draws of one distribution: the exact distance of two steps, and one by quantiles."""
    few, many = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert wasserstein(few, many) == wasserstein(many, few) == 0
    assert wasserstein(few, many + 0.25) == pytest.approx(0.25)
    stream = np.random.default_rng(0)
    x, y = (torch.from_numpy(np.sort(stream.normal(size=(1, n)))).float() for n in (400, 1000))
    # 0.8 (1/400 + 1/1000)^0.5 is the mean distance of two such draws of one normal distribution
    assert wasserstein(x, y) < 3 * 0.8 * (1 / 400 + 1 / 1000) ** 0.5
    assert wasserstein(x + 1, y) == pytest.approx(1, abs=0.1)


def test_the_distance_without_a_group_is_that_of_the_other_reals():
    """Scales and patches stay those of all reals, so only the rows that are left out differ."""
    real, other = images(0, count=10, side=16), images(1, count=7, side=16)
    (whole,) = PixelView(real, list("aaabbbbbbb"), seed=0).levels(other)
    view = PixelView(real, (), seed=0)
    ((values, order),) = view.sorted
    (patches,) = descriptors(other, torch.Generator().manual_seed(0))
    ours = view._project(patches, 0).sort(1).values
    rows = values.gather(1, order.argsort(1))  # back in the order of the images
    for left, kept in zip(
        whole.without, (slice(3 * PATCHES, None), slice(3 * PATCHES)), strict=True
    ):
        expected = SCALE * wasserstein(ours, rows[:, kept].sort(1).values)
        # `ours` is another draw of patches than the view's own
        assert left == pytest.approx(expected, rel=0.2)
    assert whole.without[0] != whole.without[1]

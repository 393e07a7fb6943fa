"""The layout view against a sum over pairs, and what it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advloop.evaluation.layout import SCALE, thumbnails
from advloop.evaluation.layout import energy_distance as measured


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return measured(x, y).value / SCALE


def layout_distance(images: np.ndarray, real: np.ndarray) -> float:
    return measured(thumbnails(images), thumbnails(real)).value


def rows(seed: int, count: int, shift: float = 0.0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=stream).double() + shift


def test_distance_is_the_sum_over_pairs_without_those_of_a_row_with_itself():
    x, y = rows(0, 5), rows(1, 7, shift=0.4)
    across = [float((a - b).norm()) for a in x for b in y]
    within_x = [float((x[i] - x[j]).norm()) for i in range(5) for j in range(5) if i != j]
    within_y = [float((y[i] - y[j]).norm()) for i in range(7) for j in range(7) if i != j]
    expected = 2 * np.mean(across) - np.mean(within_x) - np.mean(within_y)
    assert energy_distance(x, y) == pytest.approx(expected)


def test_distance_of_one_distribution_has_mean_zero_and_of_two_is_above():
    found = [energy_distance(rows(2 * k, 20), rows(2 * k + 1, 20)) for k in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5
    assert energy_distance(rows(0, 20), rows(1, 20, shift=1.0)) > max(found)


def test_thumbnails_are_means_of_squares():
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    image[0, :4, 4:8] = 255  # one cell of 16×16
    found = thumbnails(image).view(3, 16, 16)
    assert bool((found[:, 0, 1] == 1).all())
    assert float(found.sum()) == 3


def test_place_of_things_counts_and_fine_noise_does_not():
    stream = np.random.default_rng(0)

    def squares(count: int, left: bool) -> np.ndarray:
        images = np.full((count, 32, 32, 3), 200, dtype=np.uint8)
        for image in images:
            top, side = stream.integers(0, 24), stream.integers(0, 8) + (0 if left else 16)
            image[top : top + 8, side : side + 8] = 0
        return images

    real, same, moved = squares(80, True), squares(80, True), squares(80, False)
    noisy = np.clip(same + stream.normal(0, 8, same.shape), 0, 255).astype(np.uint8)
    assert layout_distance(moved, real) > 20 * abs(layout_distance(same, real))
    assert layout_distance(noisy, real) == pytest.approx(layout_distance(same, real), abs=5)


def test_the_distance_without_a_group_is_that_of_the_other_reals():
    x, y = rows(0, 5), rows(1, 7, shift=0.4)
    found = measured(x, y, list("aaabbbb"))
    assert found.without == pytest.approx([measured(x, y[3:]).value, measured(x, y[:3]).value])

"""Augmentations are symmetries of the square, and random ones follow their stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advloop.data.augmentation import augment, augment_at_random
from advloop.params.data import VARIANTS

IMAGES = np.random.default_rng(0).integers(256, size=(64, 5, 5, 3), dtype=np.uint8)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_variants_are_the_image_its_mirror_image_and_all_eight_symmetries_of_the_square():
    square = torch.arange(16.0).view(1, 1, 4, 4)
    variants = [augment(square, variant) for variant in range(8)]
    assert torch.equal(variants[0], square)
    assert torch.equal(variants[1], square.flip(3))
    grid = np.arange(16.0).reshape(4, 4)
    sides = [np.rot90(side, turns) for turns in range(4) for side in (grid, grid.T)]
    found = {tuple(variant.flatten().tolist()) for variant in variants}
    assert found == {tuple(side.flatten().tolist()) for side in sides}
    assert {"none": 1, "hflip": 2, "dihedral": len(found)} == VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_image_is_one_of_its_own_variants_and_all_of_them_occur(name):
    drawn = augment_at_random(IMAGES, name, stream())
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    variants = [augment(pixels, v).permute(0, 2, 3, 1).numpy() for v in range(VARIANTS[name])]
    found = [(drawn == variant).all((1, 2, 3)) for variant in variants]
    assert np.sum(found, axis=0).tolist() == [1] * len(IMAGES)  # random pixels: no symmetry
    assert all(rows.any() for rows in found)  # 64 draws miss one of eight with chance 0.002


def test_the_draw_follows_its_stream_and_leaves_the_images_alone():
    before = IMAGES.copy()
    first, again, other = (augment_at_random(IMAGES, "dihedral", stream(s)) for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(IMAGES, before)
    assert augment_at_random(IMAGES[:0], "dihedral", stream()).shape == (0, 5, 5, 3)

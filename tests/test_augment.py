"""Images in an orientation drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advloop.augment import VARIANTS, augment, augment_at_random

IMAGES = np.random.default_rng(0).integers(256, size=(64, 5, 5, 3), dtype=np.uint8)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    first = augment_at_random(IMAGES, "dihedral", stream())
    assert np.array_equal(first, augment_at_random(IMAGES, "dihedral", stream()))
    assert not np.array_equal(first, augment_at_random(IMAGES, "dihedral", stream(1)))
    assert np.array_equal(IMAGES, before)


def test_no_images_stay_none():
    assert augment_at_random(IMAGES[:0], "dihedral", stream()).shape == (0, 5, 5, 3)

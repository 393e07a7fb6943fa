"""What stage evaluate hands to the report: which samples, in small pictures, with their facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from advloop.autoencoder import Codec, PatchAutoencoder
from advloop.evaluation.pictures import SHOWN, judged_samples, nearest_pairs
from advloop.shown import COLOURS, Facts, Neighbour, Viability, copy_shown, read_facts, save_grid
from advloop.shown import save_facts as save


def images(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def codec() -> Codec:
    torch.manual_seed(0)
    return Codec(PatchAutoencoder(4, 4, 8, 1, 1))


def test_samples_nearest_to_training_come_first_with_the_image_that_they_are_near(codec):
    stream = torch.Generator().manual_seed(0)
    files = [f"{k}.png" for k in range(10)]
    train = torch.randn(20, 4, 8, 8, generator=stream)  # two variants of ten images
    latents = torch.randn(12, 4, 8, 8, generator=stream)
    latents[7] = train[13]
    latents[2] = train[4] + 0.01
    shown, pairs = nearest_pairs(latents, images(12), train, files, codec, 2.0, 6)
    assert [pair.file for pair in pairs[:2]] == ["3.png", "4.png"]
    assert pairs[0].distance == pytest.approx(0, abs=1e-2)
    assert pairs[1].distance == pytest.approx(0.01 * 256**0.5 / 2, abs=1e-2)
    assert [p.distance for p in pairs] == sorted(p.distance for p in pairs)
    assert len(shown) == 2 * SHOWN == 2 * len(pairs)
    assert np.array_equal(shown[0], images(12)[7])
    assert np.array_equal(shown[SHOWN], codec.decode(train[13:14])[0])


def test_most_viable_samples_come_first_and_the_least_viable_last():
    latents = torch.tensor([0.3, -2.0, 5.0, 1.0, -0.5])[:, None, None, None].expand(5, 4, 8, 8)
    shown, scores = judged_samples(latents, images(5), lambda x, **_: x[:, 0, 0, 0], 2)
    assert scores == Viability([0.9933, 0.7311], [0.1192, 0.3775])
    assert np.array_equal(shown, images(5)[[2, 3, 1, 4]])


@pytest.mark.parametrize(("size", "tile"), [(64, 64), (96, 96), (256, 86)])
def test_pictures_are_small_and_of_few_colours(tmp_path, size, tile):
    save_grid(tmp_path / "a.png", images(8, size), columns=4)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (4 * tile + 6, 2 * tile + 2)
        assert len(picture.getcolors()) <= COLOURS
    save_grid(tmp_path / "b.png", images(8, size), columns=4)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("viability", [None, Viability([0.9], [0.1])])
def test_facts_come_back_as_they_were_saved(tmp_path, viability):
    facts = Facts([Neighbour("a b.png", 0.5)], viability)
    save(tmp_path, facts)
    assert read_facts(tmp_path) == facts


def test_a_copy_leaves_nothing_of_what_was_there(tmp_path):
    (tmp_path / "from/base").mkdir(parents=True)
    (tmp_path / "from/base/facts.json").write_text("{}")
    (tmp_path / "to/old").mkdir(parents=True)
    (tmp_path / "to/old/facts.json").write_text("{}")
    copy_shown(tmp_path / "from", tmp_path / "to")
    assert [p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*")] == [
        "base",
        "base/facts.json",
    ]

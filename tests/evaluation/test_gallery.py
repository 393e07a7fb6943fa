"""The gallery of a model: which samples, in small pictures, and the facts beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_evaluation import small_codec

from advloop.core.errors import UserError
from advloop.data.pictures import COLOURS, load_png, save_grid
from advloop.evaluation.gallery import Facts, Neighbour, Viability, read_facts, save_facts
from advloop.evaluation.model import Samples
from advloop.evaluation.neighbours import nearest_rows
from advloop.evaluation.pictures import EXAMPLES, extreme_samples, nearest_pairs, save_gallery
from advloop.evaluation.views import Drawn

FILES = [f"{k}.png" for k in range(10)]
SCORES = torch.tensor([0.3, -2.0, 5.0, 1.0, -0.5]).sigmoid()


def images(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def train() -> torch.Tensor:
    """Two variants of ten images."""
    return torch.randn(20, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def samples(train: torch.Tensor) -> Samples:
    """Sample 7 is a copy of image 3 in its second variant, and sample 2 nearly one of image 4."""
    latents = torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    latents[7] = train[13]
    latents[2] = train[4] + 0.01
    drawn = Drawn(images(12), latents, torch.zeros(12, 4))
    return Samples(drawn, None, *nearest_rows(latents, train, 6))


def test_samples_nearest_to_training_come_first_with_the_image_that_they_are_near(samples, train):
    codec = small_codec()
    pictures, pairs = nearest_pairs(samples, train, FILES, codec, 2.0)
    assert [pair.file for pair in pairs[:2]] == ["3.png", "4.png"]
    assert pairs[0].distance == pytest.approx(0, abs=1e-2)
    assert pairs[1].distance == pytest.approx(0.01 * 256**0.5 / 2, abs=1e-2)
    assert [p.distance for p in pairs] == sorted(p.distance for p in pairs)
    assert len(pictures) == 2 * EXAMPLES == 2 * len(pairs)
    assert np.array_equal(pictures[0], images(12)[7])
    assert np.array_equal(pictures[EXAMPLES], codec.decode(train[13:14])[0])


def test_most_viable_samples_come_first_and_the_least_viable_last():
    pictures, found = extreme_samples(images(5), SCORES)
    assert found == Viability([0.9933, 0.7311], [0.1192, 0.3775])
    assert np.array_equal(pictures, images(5)[[2, 3, 1, 4]])


@pytest.mark.parametrize("viability", [None, torch.linspace(0.1, 0.9, 12)])
def test_a_gallery_has_its_pictures_and_their_facts(samples, train, tmp_path, viability):
    judged = Samples(**(vars(samples) | {"viability": viability}))
    save_gallery(tmp_path, judged, train, FILES, small_codec(), 2.0)
    facts = read_facts(tmp_path)
    assert facts.neighbours[0].file == "3.png"
    assert (facts.viability is None) == (viability is None)
    names = {path.name for path in tmp_path.iterdir()}
    extremes = {"viability.png"} if viability is not None else set()
    assert names == {"strip.png", "samples.png", "neighbours.png", "facts.json"} | extremes
    assert load_png(tmp_path / "strip.png").size == (EXAMPLES * 34 - 2, 32)


@pytest.mark.parametrize(("size", "tile"), [(64, 64), (96, 96), (256, 86)])
def test_pictures_are_small_and_of_few_colours(tmp_path, size, tile):
    for name in ("a.png", "b.png"):
        save_grid(tmp_path / name, images(8, size), columns=4)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (4 * tile + 6, 2 * tile + 2)
        assert len(picture.getcolors()) <= COLOURS
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"neighbours": []},
        {"neighbours": [{"file": 1, "distance": 1}], "viability": None},
        {"neighbours": [{"file": "a", "distance": True}], "viability": None},
        {"neighbours": [], "viability": {"most": [float("nan")], "least": []}},
        {"neighbours": [], "viability": {"most": [10**400], "least": []}},
        {"neighbours": [], "viability": {"most": [0.5]}},
    ],
)
def test_facts_come_back_and_anything_else_is_refused_in_one_line(tmp_path, content):
    facts = Facts([Neighbour("a b.png", 0.5)], Viability([0.9], [0.1]))
    save_facts(tmp_path, facts)
    assert read_facts(tmp_path) == facts
    (tmp_path / "facts.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"facts\.json: not what stage evaluate writes") as caught:
        read_facts(tmp_path)
    assert "\n" not in str(caught.value)

"""The picture of a run, made of the strip of each model."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from advloop.core.errors import UserError
from advloop.data.pictures import load_png, save_png
from advloop.reporting.pictures import GAP, LABEL, WIDTH, samples_picture


def strip(width: int, value: int) -> Image.Image:
    return Image.new("RGB", (width, 5), (value, value, value))


def test_strips_stand_below_each_other_beside_their_labels(tmp_path):
    names = ("real images", "base model", "round 0")
    for value, name in enumerate(names):
        save_png(tmp_path / name / "strip.png", strip(20, value))
    drawn = samples_picture({name: tmp_path / name for name in names})
    picture = np.asarray(drawn)
    factor = WIDTH // 20
    height = 5 * factor
    assert picture.shape == (3 * height + 2 * GAP, LABEL + WIDTH, 3)
    column = picture[:, LABEL, 0].tolist()
    gap = [255] * GAP
    assert column == [0] * height + gap + [1] * height + gap + [2] * height
    labels = [picture[k * (height + GAP) :][:height, :LABEL] for k in range(3)]
    assert all((label < 128).any() for label in labels)
    assert not np.array_equal(labels[0], labels[1])
    save_png(tmp_path / "samples.png", drawn)
    assert np.array_equal(np.asarray(load_png(tmp_path / "samples.png")), picture)


def test_a_strip_of_another_run_is_refused_in_one_line(tmp_path):
    for name, width in (("base", 20), ("iter_0", 9)):
        save_png(tmp_path / name / "strip.png", strip(width, 0))
    with pytest.raises(UserError, match=r"iter_0/strip\.png: is 9 pixels wide, not 20") as caught:
        samples_picture({name: tmp_path / name for name in ("base", "iter_0")})
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none/strip\.png: not found; make it with `dvc repro`"):
        samples_picture({"none": tmp_path / "none"})

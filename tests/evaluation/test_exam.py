"""What the exam lays on images, and what it says of figures whose faults are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from advloop.core.errors import UserError
from advloop.evaluation.corruptions import CORRUPTIONS, GARBAGE
from advloop.evaluation.exam import SHORT, Sets, examine, of_garbage, of_real, of_samples
from advloop.evaluation.exam_report import BLIND, FOOLED, SEES, read_report, write_report


def pictures(seed: int, count: int = 24) -> np.ndarray:
    """Rectangles of one colour on a ground of another."""
    stream = np.random.default_rng(seed)
    images = np.empty((count, 32, 32, 3), dtype=np.uint8)
    for image in images:
        image[:] = stream.integers(256, size=3)
        top, left = stream.integers(16, size=2)
        image[top : top + 12, left : left + 12] = stream.integers(256, size=3)
    return images


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", [*GARBAGE, *CORRUPTIONS])
def test_damage_keeps_the_shape_and_leaves_its_input_alone(name):
    images = pictures(0)
    before = images.copy()
    calls = (
        [GARBAGE[name](images, stream())]
        if name in GARBAGE
        else [CORRUPTIONS[name](images, k, stream()) for k in range(3)]
    )
    for damaged in calls:
        assert damaged.shape == images.shape
        assert damaged.dtype == np.uint8
        assert not np.array_equal(damaged, images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - {"patches shuffled", "modes missing"}))
def test_damage_changes_more_the_stronger_it_is(name):
    images = pictures(0)

    def changed(strength: int) -> float:
        damaged = CORRUPTIONS[name](images, strength, stream())
        return float(np.abs(damaged.astype(float) - images).mean())

    assert changed(0) < changed(1) < changed(2)


def colours(images: np.ndarray) -> list[bytes]:
    return [np.sort(one.reshape(-1, 3), axis=0).tobytes() for one in images]


def test_shuffles_keep_the_colours_of_each_image():
    images = pictures(0)
    assert colours(GARBAGE["pixels in random order"](images, stream())) == colours(images)
    assert colours(CORRUPTIONS["patches shuffled"](images, 2, stream())) == colours(images)


def test_missing_modes_are_the_darkest_and_the_rest_fills_their_places():
    images = pictures(0)
    brightness = np.sort(images.mean((1, 2, 3)))
    left = CORRUPTIONS["modes missing"](images, 1, stream()).mean((1, 2, 3))
    assert set(left) == set(brightness[12:])


# --- Judging a figure ---


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((1.5, 2.0, 3.0), SEES),
        ((1.0, 1.1, 1.15), BLIND),  # by less than two deviations
        ((1.5, 3.0, 2.0), BLIND),  # the strongest is not the worst
        ((1.5, 2.0, 0.7), FOOLED),
        ((0.9, 2.0, 3.0), BLIND),  # a gain of one deviation may be chance
    ],
)
def test_damage_to_real_images_is_seen_missed_or_preferred(values, found):
    assert of_real(values, clean=1.0, spread=0.1) == found


def test_garbage_and_damaged_samples_may_not_be_ahead_of_the_model():
    assert of_garbage(2.1, samples=2.0) == SEES
    assert of_garbage(1.9, samples=2.0) == FOOLED


@pytest.mark.parametrize(
    ("values", "bound", "spread", "found"),
    [
        ((2.5, 1.95, 3.0), 1.0, 0.0, SEES),  # half of the tenth that is allowed
        ((2.5, 1.85, 3.0), 1.0, 0.0, FOOLED),
        ((2.5, 1.85, 3.0), 1.0, 0.1, SEES),  # within two deviations
        ((1.95, 2.0, 2.0), 3.0, 0.0, FOOLED),  # nothing to gain
    ],
)
def test_damage_to_samples_may_gain_a_tenth_of_the_way_or_what_chance_gains(
    values, bound, spread, found
):
    assert of_samples(values, 2.0, bound, spread, share=0.1) == found


def test_a_figure_that_rewards_noise_or_looks_at_nothing_is_found_out(tmp_path):
    real = [pictures(seed) for seed in range(3)]
    samples = np.clip(pictures(9).astype(float) + 30, 0, 255).astype(np.uint8)

    def measure(images: np.ndarray) -> dict[str, float]:
        steps = np.abs(np.diff(images.astype(float), axis=2)).mean()
        return {"smoothness": -steps, "width": 0.0, "tint": abs(images.mean() - real[0].mean())}

    sets = Sets(real, real[0], samples, GARBAGE["random pixels"](samples, stream()))
    report = examine(sets, measure, seed=0, share=0.1)
    fooled = {str(row) for row in report.failures("smoothness")}
    assert {"noise on real", "noise on samples", "random pixels"} <= fooled
    assert {row.found["width"] for row in report.rows if row.kind == "real"} == {BLIND}
    assert len([row for row in report.rows if row.kind == "garbage"]) == 1 + len(GARBAGE)
    assert report.valid == []  # a figure that looks at nothing puts garbage level with the model
    only = report.agreeing(["smoothness"])
    assert "noise on samples, strength 3" in only
    assert set(report.agreeing(["smoothness", "width"])) == set()
    assert set(report.agreeing(["smoothness", "tint"])) <= set(only)
    write_report(tmp_path / "exam.json", report)
    assert read_report(tmp_path / "exam.json") == report
    short = examine(sets, measure, seed=0, share=0.1, strengths=SHORT)
    assert [len(row.values) for row in short.rows] == [1] * 6 + [1, 2] * len(CORRUPTIONS)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("clean", "width"), None, "width=None is not a finite number"),
        (("rows", 0, "kind"), "nothing", "is no case"),
        (("rows", 0, "found", "width"), "maybe", "is neither seen nor not"),
        (("rows", 0, "values"), [], "has other figures"),
        (("images",), "many", "do not have the same figures"),
    ],
)
def test_a_damaged_report_is_refused_in_one_line(tmp_path, path, value, says):
    real = pictures(0)
    sets = Sets([real, real[::-1]], real, real, real)
    report = examine(sets, lambda images: {"width": float(images.mean())}, seed=0, share=0.1)
    file = tmp_path / "exam.json"
    write_report(file, report)
    content = json.loads(file.read_text())
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"exam\.json: not an exam") as caught:
        read_report(file)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)

"""The evaluation-only reals: their file, and the refusal of copies."""

from __future__ import annotations

import pytest
import torch

from advloop.core.errors import UserError
from advloop.evaluation.reals import Reals, load_reals, nearest_training, save_reals


def some_reals(labels: torch.Tensor | None = None) -> Reals:
    stream = torch.Generator().manual_seed(0)
    features = torch.randn(8, 5, generator=stream)
    latents = torch.randn(2, 8, 4, 2, 2, generator=stream)
    groups = ["a", "a", "a", "b", "b", "b", "c", "c"]
    return Reals({"tune": features[:6], "test": features}, latents, groups, 1.5, labels)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1] * 4)])
def test_reals_come_back_and_those_of_other_latents_are_refused(tmp_path, labels):
    reals = some_reals(labels)
    save_reals(tmp_path / "reals.pt", reals)
    again = load_reals(tmp_path / "reals.pt", reals.latents.flatten(0, 1))
    assert torch.equal(again.latents, reals.latents)
    assert (again.groups, again.nearest) == (reals.groups, reals.nearest)
    assert all(torch.equal(again.features[name], reals.features[name]) for name in reals.features)
    assert again.labels is None if labels is None else torch.equal(again.labels, labels)
    with pytest.raises(UserError, match=r"reals\.pt: not a set of evaluation reals") as caught:
        load_reals(tmp_path / "reals.pt", torch.zeros(15, 4, 2, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("copies", [3, 4, 5])  # of 8, whose median is the fourth smallest
def test_copies_of_training_images_are_refused_from_half_of_them_on(copies):
    stream = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 4, 8, 8, generator=stream) for n in (20, 8))
    test[:copies] = train[:copies] + 1e-5
    if copies < 4:
        expected = torch.cdist(test.flatten(1), train.flatten(1)).amin(1).median()
        assert nearest_training(test, train, 6) == pytest.approx(float(expected))
    else:
        with pytest.raises(UserError, match=r"data\.source: at least half .* are copies"):
            nearest_training(test, train, 6)

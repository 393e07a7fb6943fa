"""One step of a discriminator on pairs: its loss, its penalties, its zero, and its partners."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from small_discriminator import fit, make_setup, rebuild, side
from small_opponent import side as reals_of
from torch import nn

from advloop.models.discriminator import Discriminator
from advloop.training.discriminator import train_discriminator, validate
from advloop.training.discriminator_data import DiscData
from advloop.training.pairs import Pairs, Reals, centre, paired_rows, step_on_pairs

NO_PENALTY = SimpleNamespace(r1_weight=0.0, r2_weight=0.0, r1_sigma=0.1)
MODEL = {"dropout": 0.0, "statistics": True}


class Slope(nn.Module):
    """D(x) = w * sum of x, whose squared gradient is w^2 for each cell."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def pool(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.flatten(1).sum(1, keepdim=True)

    def classify(self, pooled: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        return self.w * pooled[:, 0]


def step(w: float, real: float, fake: float, stream: int = 0, rows: int = 2, **settings: float):
    """(step, gradient of its loss in w) on latents of one cell."""
    model = Slope(w)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    pairs = Pairs(torch.full((rows, 1, 1, 1), real), torch.full((rows, 1, 1, 1), fake), None)
    own = SimpleNamespace(**vars(NO_PENALTY) | settings)
    done = step_on_pairs(model, optimizer, pairs, own, torch.Generator().manual_seed(stream))
    return done, w - float(model.w.detach())


def test_step_without_penalties_is_that_of_the_pairing_loss():
    done, gradient = step(0.5, real=3.0, fake=1.0)
    assert done.real.tolist() == [1.5, 1.5]
    assert done.fake.tolist() == [0.5, 0.5]
    assert float(done.penalty) == 0.0
    expected = -2 / (1 + math.exp(1.0))  # d softplus(-2 w) / dw at w = 1/2
    assert gradient == pytest.approx(expected)
    assert float(done.grad_norm) == pytest.approx(abs(expected))


@pytest.mark.parametrize("names", [("r1_weight",), ("r2_weight",), ("r1_weight", "r2_weight")])
def test_penalties_are_their_weights_times_the_squared_gradient(names):
    done, gradient = step(0.5, 1.0, 1.0, rows=20_000, **dict.fromkeys(names, 0.3))
    # relative standard error of a mean of squares of normal numbers: sqrt(2 / 20,000) = 0.01
    expected = len(names) * 0.3 * 0.25
    assert float(done.penalty) == pytest.approx(expected, rel=0.05)
    assert gradient == pytest.approx(2 * expected / 0.5, rel=0.05)  # of w^2


def test_without_penalties_no_noise_is_drawn():
    stream = torch.Generator().manual_seed(0)
    before = stream.get_state()
    model = Slope(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ones = torch.ones(1, 1, 1, 1)
    step_on_pairs(model, optimizer, Pairs(ones, ones, None), NO_PENALTY, stream)
    assert torch.equal(stream.get_state(), before)


def test_centre_moves_every_logit_alike():
    model = Discriminator(4, [8], 0.0).eval()
    latents = side(0, 3).latents
    with torch.no_grad():
        before = model(latents)
        centre(model, before[:3], before[3:])
        after = model(latents)
    torch.testing.assert_close(before - after, (before - after).mean().expand(6))
    assert float(after[:3].mean() + after[3:].mean()) == pytest.approx(0.0, abs=1e-6)


# --- partners ---


def test_every_row_is_in_one_pair_and_pairs_change():
    data = side(0, 10)
    real, fake = paired_rows(data, torch.Generator().manual_seed(0))
    assert sorted(real.tolist()) == list(range(10))
    assert sorted(fake.tolist()) == list(range(10, 20))
    assert (fake - real).unique().numel() > 1


def test_partners_are_of_one_class():
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 2] * 2)
    data = DiscData(torch.zeros(14, 1, 2, 2), torch.tensor([1.0] * 7 + [0.0] * 7), labels=labels)
    real, fake = paired_rows(data, torch.Generator().manual_seed(0))
    assert torch.equal(labels[real], labels[fake])
    assert sorted(fake.tolist()) == list(range(7, 14))


def test_reals_are_drawn_of_the_classes_that_are_asked_for():
    reals = Reals(reals_of(0, 11, num_classes=3), torch.device("cpu"))
    wanted = torch.tensor([2, 2, 0, 1, 0] * 20)
    drawn = reals.draw_like(wanted, 100, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.labels, wanted)
    given = reals_of(0, 11, num_classes=3)
    for latent, label in zip(drawn.latents, drawn.labels, strict=True):
        same = (given.latents == latent).flatten(1).all(1)
        assert given.labels[same].tolist() == [int(label)]
    assert len(drawn.latents[:, 0, 0, 0].unique()) == 11


# --- a training of stage train_disc ---


def trained(**changes):
    model = make_setup(side(0, 1), side(0, 1)).model.model_copy(update=MODEL)
    own = {"loss": "relativistic", "r1_weight": 0.05, "r2_weight": 0.05} | changes
    return fit(side(0, 60, 0.2), side(1, 60, 0.2), model, **own)


def test_training_on_pairs_separates_what_can_be_separated_around_zero():
    result = trained()
    last = result.history[-1]
    assert last["val_accuracy"] > 0.9
    assert last["val_viability"] < 0.3
    assert last["val_loss"] < 0.5
    model = rebuild(result, result.final)
    data = side(1, 60, 0.2)
    with torch.no_grad():
        real, fake = model(data.latents).chunk(2)
    assert last["val_loss"] == pytest.approx(float(nn.functional.softplus(fake - real).mean()))
    assert validate(model, data, 7, loss="relativistic").loss == pytest.approx(last["val_loss"])


def test_training_on_pairs_gives_the_same_bytes_twice_and_other_weights_for_another_penalty():
    first, second, other = trained(epochs=2), trained(epochs=2), trained(epochs=2, r2_weight=0.5)
    for name, weight in first.final.items():
        assert torch.equal(weight, second.final[name])
    assert first.history == second.history
    assert first.history != other.history


def test_penalties_make_it_flatter():
    steep, flat = (trained(epochs=3, r1_weight=w, r2_weight=w).history[-1] for w in (0.0, 5.0))
    assert flat["train_loss"] > steep["train_loss"]


def test_classes_are_trained_in_pairs():
    labels = torch.arange(40) % 2
    halves = [side(k, 20, 0.3) for k in (0, 1)]
    data = [DiscData(h.latents, h.real, labels=labels) for h in halves]
    model = make_setup(*data).model.model_copy(update=MODEL)
    setup = make_setup(*data, model, num_classes=2, epochs=2, loss="relativistic")
    result = train_discriminator(setup, iter, lambda _: None)
    assert math.isfinite(result.history[-1]["val_loss"])

"""Losses and measures of pairs, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from advloop.models.pairing import accuracy, midpoint, pairing_loss, viability

REAL, FAKE = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 3.0])


def test_loss_of_a_pair_is_that_of_the_difference_of_its_logits():
    expected = [math.log1p(math.exp(-2)), math.log(2), math.log1p(math.exp(2))]
    torch.testing.assert_close(pairing_loss(REAL, FAKE), torch.tensor(expected))
    torch.testing.assert_close(pairing_loss(REAL + 7, FAKE + 7), pairing_loss(REAL, FAKE))


def test_loss_of_the_generator_has_the_opposite_gradient_where_nothing_is_told_apart():
    fake = torch.zeros(3, requires_grad=True)
    (ours,) = torch.autograd.grad(pairing_loss(fake, torch.zeros(3)).mean(), fake)
    (theirs,) = torch.autograd.grad(pairing_loss(torch.zeros(3), fake).mean(), fake)
    assert ours.tolist() == pytest.approx([-1 / 6] * 3)
    assert torch.equal(ours, -theirs)


def test_zero_is_in_the_middle_of_both_means():
    assert float(midpoint(REAL, FAKE)) == 1.0


def test_accuracy_weighs_both_classes_alike_and_does_not_depend_on_the_zero():
    real, fake = torch.tensor([3.0, 1.0, 3.0, 1.0]), torch.tensor([0.0, 2.2])  # zero at 1.55
    assert float(accuracy(real, fake)) == pytest.approx((0.5 + 0.5) / 2)
    assert float(accuracy(real - 100, fake - 100)) == pytest.approx(0.5)
    assert float(accuracy(torch.ones(4), -torch.ones(2))) == 1.0


def test_viability_of_what_cannot_be_told_apart_is_a_half():
    same = torch.full((5,), 17.0)
    assert float(viability(same, same)) == 0.5
    expected = sum(1 / (1 + math.exp(1 - logit)) for logit in (0.0, 0.0, 3.0)) / 3
    assert float(viability(REAL, FAKE)) == pytest.approx(expected)

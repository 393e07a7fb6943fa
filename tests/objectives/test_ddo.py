"""Objective ddo: which way it moves the model on real latents and on its own samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objective_batches import PREDICTION_TYPES, PROCESS, Mean, make_batch
from objective_files import objective_params
from small_diffusion import copy_weights, equal, make_criterion, run
from small_diffusion import make_setup as plain_setup
from tiny_unet import CONFIG
from torch.nn import functional as F

from advloop.diffusion.batch import Batch
from advloop.models.denoiser import build_denoiser, frozen_copy
from advloop.objectives.ddo import fake_weights, log_ratio, make_ddo
from advloop.training.batches import Side
from advloop.training.diffusion import Setup

ZERO = torch.zeros(4, 4, 8, 8)


def ddo(alpha: float = 1.0, beta: float = 1.0, file: str = "ddo"):
    return make_ddo(objective_params(file, alpha=alpha, beta=beta))


def pair(**options) -> Batch:
    """A batch with fakes, whose model and reference both predict zero."""
    real, fake = (
        make_batch(seed=seed, output=ZERO.clone(), reference=ZERO, **options) for seed in (0, 1)
    )
    return replace(real, fake=fake)


def gradients(objective, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """In the outputs for reals and for fakes."""
    return torch.autograd.grad(objective(batch)[0], (batch.output, batch.fake.output))


def test_log_ratio_is_positive_where_the_model_predicts_better_than_its_reference():
    batch = pair()
    assert log_ratio(batch).tolist() == [0.0] * 4
    better, worse = (replace(batch, output=sign * 0.1 * batch.target()) for sign in (1, -1))
    assert bool((log_ratio(worse) < 0).all())
    # errors of 0.9 and 1.0 times the target: (1 - 0.81) of its mean square
    squares = batch.target().square().flatten(1).mean(1)
    torch.testing.assert_close(log_ratio(better), 0.19 * squares)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_gradient_pulls_the_model_to_reals_and_pushes_it_from_fakes(prediction_type):
    batch = pair(process=replace(PROCESS, prediction_type=prediction_type), weight=100.0)
    real, fake = gradients(ddo(), batch)
    towards = F.cosine_similarity(-real.flatten(1), batch.target().flatten(1))
    away = F.cosine_similarity(-fake.flatten(1), batch.fake.target().flatten(1))
    torch.testing.assert_close(towards, torch.ones(4))
    torch.testing.assert_close(away, -torch.ones(4))


def test_implied_discriminator_is_undecided_where_model_and_reference_agree():
    loss, terms = ddo(alpha=3.0, beta=0.7)(pair(weight=0.5))
    assert float(terms["ddo_loss"]) == pytest.approx(4 * math.log(2), rel=1e-6)
    torch.testing.assert_close(loss.detach(), terms["noise_loss"] + 0.5 * terms["ddo_loss"])


def test_alpha_weighs_the_fakes_alone_and_zero_leaves_them_out():
    real, fake = gradients(ddo(alpha=0.0), pair())
    assert bool(real.any())
    assert not bool(fake.any())
    once, twice = (gradients(ddo(alpha=alpha), pair()) for alpha in (1.0, 2.0))
    torch.testing.assert_close(twice[0], once[0])
    torch.testing.assert_close(twice[1], 2 * once[1])


def test_model_far_from_its_reference_gives_a_finite_loss():
    batch = pair()
    far = replace(batch.fake, output=1e3 * batch.fake.target())
    away = replace(batch, output=-1e3 * batch.target(), fake=far)
    assert bool(torch.isfinite(ddo(beta=5.0)(away)[0]))


# --- in the training loop ---


def make_setup(weight: float, *, plain: bool = False) -> Setup:
    """Real latents around +1, fakes around -1; the reference is the tiny network."""
    stream = torch.Generator().manual_seed(0)

    def around(mean: float, rows: int) -> Side:
        return Side(mean + 0.1 * torch.randn(rows, 4, 8, 8, generator=stream))

    train, val, fakes, val_fakes = around(1, 16), around(1, 8), around(-1, 8), around(-1, 4)
    reference = frozen_copy(build_denoiser(CONFIG, seed=0))
    criterion = make_criterion("none", weight)
    if not plain:
        criterion = make_criterion(ddo(), weight, reference=reference)
    setup = plain_setup(criterion, epochs=3, batch_size=8, ema_decay=0.5, grad_clip=10.0)
    setup = replace(setup, train=train, val=val)
    return setup if plain else replace(setup, fakes=fakes, val_fakes=val_fakes)


def test_training_with_weight_zero_gives_the_weights_of_none_to_the_byte():
    (_, ours, averages), (_, theirs, others) = run(make_setup(0.0)), run(make_setup(0, plain=True))
    assert equal(ours[-1], theirs[-1])
    assert equal(averages[-1], others[-1])


def test_training_makes_the_implied_discriminator_separate_reals_and_fakes():
    setup = make_setup(10.0)
    before = copy_weights(setup.criterion.reference)
    rows, _, _ = run(setup)
    assert rows[0]["ddo_loss"] > rows[-1]["ddo_loss"]
    assert rows[-1]["val_ddo_loss"] < 2 * math.log(2), "undecided"
    assert equal(before, copy_weights(setup.criterion.reference))


# --- fakes weighted by the trained discriminator ---


def judged_pair() -> Batch:
    """Fakes of means -1, -1, 1 and 1: two look fake to the discriminator, and two real."""
    batch = pair(timesteps=(200,) * 4)
    means = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(4, 1, 1, 1)
    return replace(batch, fake=replace(batch.fake, x0=means.expand_as(batch.x0)))


def test_weights_grow_with_the_probability_of_being_fake_and_have_mean_one():
    fake = judged_pair().fake
    assert isinstance(fake.discriminator, Mean)
    weights = fake_weights(fake)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert weights[0] == weights[1] > 10 * weights[2]  # sigmoid(5) and sigmoid(-5)
    assert not weights.requires_grad


def test_discriminator_sets_how_far_each_fake_is_pushed():
    _, fake = gradients(ddo(file="ddo_weighted"), judged_pair())
    sizes = fake.flatten(1).norm(dim=1)
    assert float(sizes[:2].min()) > 10 * float(sizes[2:].max())


def test_undecided_discriminator_makes_weighted_ddo_plain_ddo():
    batch = judged_pair()
    batch = replace(batch, fake=replace(batch.fake, x0=ZERO))
    torch.testing.assert_close(ddo(file="ddo_weighted")(batch)[0], ddo()(batch)[0])


def test_plain_ddo_needs_no_discriminator():
    batch = pair(discriminator=None)
    assert list(ddo()(batch)[1]) == ["noise_loss", "ddo_loss"]

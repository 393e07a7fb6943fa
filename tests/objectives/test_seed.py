"""Objective seed: the discriminator judges the prediction, and its gradient reaches the U-Net."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objective_batches import PREDICTION_TYPES, PROCESS, gradient, make_batch
from small_diffusion import copy_weights, equal
from tiny_unet import CONFIG
from torch import nn

from advloop.diffusion.batch import discriminator_terms, noise_only
from advloop.models.denoiser import build_denoiser
from advloop.models.discriminator import Discriminator, load_discriminator, save_discriminator
from advloop.objectives.seed import seed_objective


@pytest.fixture
def discriminator(tmp_path) -> Discriminator:
    """Frozen, as train_diffusion loads it."""
    torch.manual_seed(0)
    fresh = Discriminator(4, [8], dropout=0.5)
    save_discriminator(tmp_path / "discriminator.pt", fresh.config, fresh.state_dict())
    return load_discriminator(tmp_path / "discriminator.pt", 4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_discriminator_loss_reaches_the_unet_and_leaves_the_discriminator_alone(
    prediction_type, discriminator
):
    """The noise loss is made exactly zero, so that only discriminator_loss is left."""
    before, unet = copy_weights(discriminator), build_denoiser(CONFIG, seed=0)
    process = replace(PROCESS, prediction_type=prediction_type)
    options = {"discriminator": discriminator, "process": process}
    sizes = []
    for objective in (seed_objective, noise_only):
        batch = make_batch(**options)
        output = unet(batch.noisy, batch.timesteps)
        batch = replace(batch, output=output - output.detach() + batch.target())
        loss, terms = objective(batch)
        # the target is rebuilt through x - x + target, exact to a few float32 roundings
        assert float(terms["noise_loss"]) < 1e-12
        unet.zero_grad()
        loss.backward()
        gradients = [parameter.grad for parameter in unet.parameters()]
        assert objective is noise_only or all(bool(found.any()) for found in gradients)
        sizes.append(math.sqrt(sum(float(found.square().sum()) for found in gradients)))
    assert sizes[0] > 100 * sizes[1]
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert equal(before, copy_weights(discriminator))


def test_gradient_leads_to_predictions_that_the_discriminator_judges_more_real(discriminator):
    """A small step against it, with the noise loss at zero."""
    batch = make_batch((10, 10, 10, 10), discriminator=discriminator)
    batch = replace(batch, output=batch.target().requires_grad_())
    found = gradient(seed_objective, batch)
    moved = replace(batch, output=(batch.output - 0.1 * found / found.norm()).detach())
    (_, before), (_, after) = seed_objective(batch), seed_objective(moved)
    assert float(after["viability_score"]) > float(before["viability_score"])
    assert float(after["discriminator_loss"]) < float(before["discriminator_loss"])


def test_weight_multiplies_the_discriminator_loss_alone(discriminator):
    loss, terms = seed_objective(make_batch(discriminator=discriminator, weight=0.25))
    expected = terms["noise_loss"] + 0.25 * terms["discriminator_loss"]
    torch.testing.assert_close(loss.detach(), expected)


def test_discriminator_judges_the_prediction_and_not_the_true_latents():
    class Recorder(nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            self.seen = latents
            return latents.mean((1, 2, 3))

    batch = make_batch(discriminator=Recorder())
    seed_objective(batch)
    torch.testing.assert_close(batch.discriminator.seen, batch.predicted_x0())
    assert not torch.allclose(batch.discriminator.seen, batch.x0, atol=0.1)
    assert batch.discriminator.seen.requires_grad


def test_terms_are_means_over_samples_of_minus_log_sigmoid_and_of_sigmoid():
    """Not minus the log of the mean; and viability has no gradient."""
    logits = torch.tensor([math.log(3.0), -math.log(3.0), 0.0], requires_grad=True)
    loss, viability = discriminator_terms(logits)  # D = 3/4, 1/4 and 1/2
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4) + math.log(2)) / 3)
    assert viability.item() == pytest.approx(0.5)
    assert loss.requires_grad
    assert not viability.requires_grad


def test_confident_discriminator_gives_a_large_and_finite_loss():
    logits = torch.tensor([-1e4, -200.0], requires_grad=True)  # sigmoid underflows to 0 in float32
    loss, viability = discriminator_terms(logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(5100.0)
    assert float(viability) == 0.0
    torch.testing.assert_close(logits.grad, torch.tensor([-0.5, -0.5]))

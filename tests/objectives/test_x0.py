"""Objective x0: which predictions the discriminator judges, how much they weigh, and the cap."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objective_batches import PROCESS, gradient, make_batch
from objective_files import objective_params
from torch import nn

from advloop.diffusion.batch import noise_only
from advloop.objectives import recipe_of
from advloop.objectives.x0 import AdaptiveWeight, make_x0, prediction_weights

OBJECTIVE = make_x0(objective_params("x0", min_alpha_bar=0.5))


def test_weights_are_zero_below_the_gate_and_grow_with_the_signal_to_a_bound():
    alpha_bar = torch.tensor([0.9999, 5 / 6, 0.75, 0.5, 0.49, 1e-6])
    weights = prediction_weights(alpha_bar, torch.arange(6), 0.5)
    # SNR of 5 / 6 is 5, of 3 / 4 it is 3, of a half 1
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 0.6, 0.2, 0.0, 0.0]))


def test_predictions_below_the_gate_receive_no_adversarial_gradient():
    batch = make_batch((50, 100, 700, 990))
    assert float(PROCESS.alpha_bars[100]) > 0.5 > float(PROCESS.alpha_bars[700])
    difference = gradient(OBJECTIVE, batch) - gradient(noise_only, batch)
    sizes = difference.flatten(1).norm(dim=1)
    assert bool((sizes[:2] > 1e-4).all())
    assert sizes[2:].tolist() == [0.0, 0.0]


def test_gradient_leads_to_predictions_that_the_discriminator_judges_more_real():
    batch = make_batch((50, 100))
    adversarial = gradient(OBJECTIVE, batch) - gradient(noise_only, batch)
    moved = replace(batch, output=(batch.output - adversarial).detach().requires_grad_())
    (_, before), (_, after) = OBJECTIVE(batch), OBJECTIVE(moved)
    assert float(after["viability_score"]) > float(before["viability_score"])


def test_batch_below_the_gate_has_the_noise_loss_alone():
    batch = make_batch((800, 990))
    loss, terms = OBJECTIVE(batch)
    assert float(terms["discriminator_loss"]) == float(terms["viability_score"]) == 0.0
    torch.testing.assert_close(loss, noise_only(batch)[0])


def test_gradient_ratio_is_the_norm_of_one_gradient_over_the_other():
    batch = make_batch((50, 100, 200))
    _, terms = OBJECTIVE(batch)
    noise = gradient(noise_only, batch)
    adversarial = gradient(OBJECTIVE, batch) - noise
    expected = noise.norm() / adversarial.norm()
    torch.testing.assert_close(terms["gradient_ratio"], expected, rtol=1e-4, atol=0.0)
    with torch.no_grad():  # in validation there is no gradient
        assert "gradient_ratio" not in OBJECTIVE(batch)[1]


class Recorder(nn.Module):
    """A noise-conditioned discriminator that remembers its arguments."""

    noise_conditioned = True

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.seen = latents, timesteps
        return latents.mean((1, 2, 3))


def test_noise_conditioned_discriminator_judges_renoised_predictions_above_the_gate():
    batch = make_batch((0, 300, 600, 999), discriminator=Recorder())
    OBJECTIVE(batch)
    latents, timesteps = batch.discriminator.seen
    limit = int((PROCESS.alpha_bars >= 0.5).sum())
    # the neighbour's timestep in [0, 1000), scaled to [0, limit)
    assert timesteps.tolist() == [999 * limit // 1000, 0, 300 * limit // 1000, 600 * limit // 1000]
    expected = PROCESS.add_noise(batch.predicted_x0(), batch.eps.roll(1, 0), timesteps)
    torch.testing.assert_close(latents, expected)
    assert latents.requires_grad


# --- the weight over the steps ---


def step(weight: AdaptiveWeight, ratio: float) -> float:
    weight.update({"gradient_ratio": torch.tensor(ratio)})
    return float(weight.current())


def test_recipe_sets_the_weight_from_the_parameters():
    params = objective_params("x0", weight=0.8, max_gradient_ratio=0.25, ramp_steps=7)
    assert recipe_of("x0").adaptive(params) == AdaptiveWeight(0.8, 0.25, 7)


def test_weight_rises_from_zero_in_a_straight_line_and_then_stays():
    weight = AdaptiveWeight(0.8, max_ratio=1.0, ramp_steps=4)
    assert weight.current() == 0.0
    assert [step(weight, 100.0) for _ in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


@pytest.mark.parametrize(
    ("weight", "ratios", "expected"),
    [
        (AdaptiveWeight(10.0, 0.5, 0), (0.2,), [0.1]),  # half of the noise loss's gradient
        (AdaptiveWeight(math.inf, 1.0, 0, decay=0.9), (1.0, 11.0), [1.0, 2.0]),
        # a batch without adversarial gradient counts as one at the full weight
        (AdaptiveWeight(1.0, 1.0, 0, decay=0.5), (0.1, 1e12, 0.1), [0.1, 0.55, 0.325]),
    ],
)
def test_weight_is_capped_by_the_average_of_the_gradient_ratios(weight, ratios, expected):
    assert [step(weight, ratio) for ratio in ratios] == pytest.approx(expected)

"""Objective x0: where the discriminator judges, how much it weighs, and what caps it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from advloop.objectives.base import Batch
from advloop.objectives.none import noise_only
from advloop.objectives.weighting import AdaptiveWeight
from advloop.objectives.x0 import make_x0, prediction_weights
from advloop.schedule import add_noise, make_alphas_cumprod

ALPHAS_CUMPROD = make_alphas_cumprod("squaredcos_cap_v2", 1000)
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Mean(nn.Module):
    """A discriminator that takes large values for real."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.mean((1, 2, 3))


def make_batch(
    timesteps: tuple[int, ...],
    *,
    weight: float = 1.0,
    prediction_type: str = "v_prediction",
    alphas_cumprod: torch.Tensor = ALPHAS_CUMPROD,
) -> Batch:
    """A batch whose output is a leaf of the graph."""
    stream = torch.Generator().manual_seed(0)
    shape = (len(timesteps), 2, 4, 4)
    x0, eps, output = (torch.randn(shape, generator=stream) for _ in range(3))
    steps = torch.tensor(timesteps)
    noisy = add_noise(x0, eps, steps, alphas_cumprod)
    return Batch(
        x0,
        eps,
        noisy,
        steps,
        output.requires_grad_(),
        alphas_cumprod,
        prediction_type,
        Mean(),
        weight,
    )


def gradient(batch: Batch, objective) -> torch.Tensor:
    loss, _ = objective(batch)
    return torch.autograd.grad(loss, batch.output)[0]


def test_weights_are_zero_below_the_gate_and_grow_with_the_signal_to_a_bound():
    alpha_bar = torch.tensor([0.9999, 5 / 6, 0.75, 0.5, 0.49, 1e-6])
    weights = prediction_weights(alpha_bar, torch.arange(6), 0.5)
    # SNR of 5 / 6 is 5, of 3 / 4 it is 3, of a half 1
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 0.6, 0.2, 0.0, 0.0]))


def test_predictions_below_the_gate_receive_no_adversarial_gradient():
    batch = make_batch((50, 100, 700, 990))
    assert float(ALPHAS_CUMPROD[100]) > 0.5 > float(ALPHAS_CUMPROD[700])
    difference = gradient(batch, make_x0(0.5)) - gradient(batch, noise_only)
    sizes = difference.flatten(1).norm(dim=1)
    assert bool((sizes[:2] > 1e-4).all())
    assert sizes[2:].tolist() == [0.0, 0.0]


def test_the_gradient_moves_the_prediction_towards_what_the_discriminator_takes_for_real():
    batch = make_batch((50, 100))
    objective = make_x0(0.5)
    adversarial = gradient(batch, objective) - gradient(batch, noise_only)
    _, terms = objective(batch)
    moved = Batch(
        **{**batch.__dict__, "output": (batch.output - adversarial).detach().requires_grad_()}
    )
    _, after = objective(moved)
    assert float(after["viability_score"]) > float(terms["viability_score"])


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weight_zero_gives_the_gradient_of_none_to_the_byte(prediction_type):
    batch = make_batch((0, 200, 999), weight=0.0, prediction_type=prediction_type)
    assert torch.equal(gradient(batch, make_x0(0.5)), gradient(batch, noise_only))
    assert torch.equal(make_x0(0.5)(batch)[0], noise_only(batch)[0])


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", [0, 999])
def test_loss_and_gradient_are_finite_at_both_ends_of_the_process(
    beta_schedule, prediction_type, timestep
):
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000)
    options = {"prediction_type": prediction_type, "alphas_cumprod": alphas_cumprod}
    batch = make_batch((timestep,) * 4, **options)
    loss, terms = make_x0(0.5)(batch)
    assert all(bool(torch.isfinite(value)) for value in [loss, *terms.values()])
    assert bool(torch.isfinite(gradient(batch, make_x0(0.5))).all())


def test_a_batch_below_the_gate_is_judged_by_its_noise_loss_alone():
    batch = make_batch((800, 990))
    loss, terms = make_x0(0.5)(batch)
    assert float(terms["discriminator_loss"]) == 0.0
    torch.testing.assert_close(loss, noise_only(batch)[0])


def test_the_gradient_ratio_is_the_norm_of_one_gradient_over_the_other():
    batch = make_batch((50, 100, 200))
    _, terms = make_x0(0.5)(batch)
    noise = gradient(batch, noise_only)
    adversarial = gradient(batch, make_x0(0.5)) - noise
    expected = noise.norm() / adversarial.norm()
    torch.testing.assert_close(terms["gradient_ratio"], expected, rtol=1e-4, atol=0.0)


def test_no_gradient_ratio_is_asked_for_where_no_graph_is():
    batch = make_batch((50, 100))
    with torch.no_grad():
        _, terms = make_x0(0.5)(batch)
    assert list(terms) == ["noise_loss", "discriminator_loss", "viability_score"]


class Told(nn.Module):
    """A noise-conditioned discriminator that notes what it is shown."""

    noise_conditioned = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.seen.append((latents, timesteps))
        return latents.mean((1, 2, 3))


def test_a_noise_conditioned_discriminator_is_shown_renoised_predictions_above_the_gate():
    told = Told()
    batch = replace(make_batch((0, 300, 600, 999)), discriminator=told)
    make_x0(0.5)(batch)
    ((shown, timesteps),) = told.seen
    limit = int((ALPHAS_CUMPROD >= 0.5).sum())
    # the neighbour's place in [0, 1000), in [0, limit)
    assert timesteps.tolist() == [999 * limit // 1000, 0, 300 * limit // 1000, 600 * limit // 1000]
    expected = add_noise(batch.predicted_x0(), batch.eps.roll(1, 0), timesteps, ALPHAS_CUMPROD)
    torch.testing.assert_close(shown, expected)
    assert shown.requires_grad


# --- The weight over the steps ---


def step(weight: AdaptiveWeight, ratio: float) -> float:
    weight.update({"gradient_ratio": torch.tensor(ratio)})
    return float(weight.current())


def test_the_first_step_is_one_of_the_noise_loss_alone():
    assert float(AdaptiveWeight(0.5, max_ratio=1.0, ramp_steps=0).current()) == 0.0


def test_the_weight_rises_in_a_straight_line_and_then_stays():
    weight = AdaptiveWeight(0.8, max_ratio=1.0, ramp_steps=4)
    assert [step(weight, 100.0) for _ in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_the_adversarial_gradient_stays_below_max_ratio_times_that_of_the_noise_loss():
    weight = AdaptiveWeight(10.0, max_ratio=0.5, ramp_steps=0)
    assert step(weight, 0.2) == pytest.approx(0.1)  # noise gradient a fifth of the adversarial


def test_a_batch_without_adversarial_gradient_does_not_lift_the_cap_for_long():
    weight = AdaptiveWeight(1.0, max_ratio=1.0, ramp_steps=0, decay=0.5)
    assert step(weight, 0.1) == pytest.approx(0.1)
    assert step(weight, 1e12) == pytest.approx(0.55)
    assert step(weight, 0.1) == pytest.approx(0.325)


def test_one_batch_out_of_line_moves_the_cap_by_a_tenth():
    weight = AdaptiveWeight(math.inf, max_ratio=1.0, ramp_steps=0, decay=0.9)
    assert step(weight, 1.0) == pytest.approx(1.0)
    assert step(weight, 11.0) == pytest.approx(2.0)

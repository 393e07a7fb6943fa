"""Objective ddo: which way it moves the model on real latents and on its own samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_unet import CONFIG
from torch.nn import functional as F

from advloop.criterion import Criterion
from advloop.diffusion_training import Setup, train_diffusion
from advloop.objectives.base import Batch
from advloop.objectives.ddo import fake_weights, log_ratio, make_ddo
from advloop.objectives.none import noise_only
from advloop.params.diffusion import BaseParams, DiffusionParams
from advloop.schedule import add_noise, make_alphas_cumprod
from advloop.unet import Denoiser, build_unet, frozen_copy

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def make_batch(
    output: torch.Tensor | None = None,
    *,
    seed: int = 0,
    timesteps: tuple[int, ...] = (10, 200, 500, 800),
    prediction_type: str = "v_prediction",
    weight: float = 1.0,
) -> Batch:
    """Random latents; the reference predicts zero, and the model ``output`` (zero if None)."""
    stream = torch.Generator().manual_seed(seed)
    shape = (len(timesteps), 2, 4, 4)
    x0, eps = torch.randn(shape, generator=stream), torch.randn(shape, generator=stream)
    steps, alphas_cumprod = torch.tensor(timesteps), make_alphas_cumprod("squaredcos_cap_v2", 1000)
    return Batch(
        x0=x0,
        eps=eps,
        noisy=add_noise(x0, eps, steps, alphas_cumprod),
        timesteps=steps,
        output=torch.zeros(shape) if output is None else output,
        alphas_cumprod=alphas_cumprod,
        prediction_type=prediction_type,
        discriminator=None,
        weight=weight,
        reference=torch.zeros(shape),
    )


def pair(**options) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """A batch with fakes, and both outputs as leaves of the graph; the model is the reference."""
    outputs = [torch.zeros(4, 2, 4, 4, requires_grad=True) for _ in range(2)]
    real, fake = (make_batch(o, seed=s, **options) for s, o in enumerate(outputs))
    return replace(real, fake=fake), *outputs


def test_the_log_ratio_is_positive_where_the_model_predicts_better_than_its_reference():
    batch = make_batch()
    assert log_ratio(batch).tolist() == [0.0] * 4
    better, worse = (replace(batch, output=sign * 0.1 * batch.target()) for sign in (1, -1))
    assert bool((log_ratio(better) > 0).all())
    assert bool((log_ratio(worse) < 0).all())
    # errors of 0.9 and 1.0 times the target: (1 - 0.81) of its mean square
    squares = batch.target().square().flatten(1).mean(1)
    torch.testing.assert_close(log_ratio(better), 0.19 * squares)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_gradient_draws_the_model_to_reals_and_pushes_it_from_fakes(prediction_type):
    batch, real, fake = pair(prediction_type=prediction_type, weight=100.0)
    loss, _ = make_ddo(alpha=1.0, beta=1.0)(batch)
    loss.backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert batch.fake is not None
    towards = F.cosine_similarity(-real.grad.flatten(1), batch.target().flatten(1))
    away = F.cosine_similarity(-fake.grad.flatten(1), batch.fake.target().flatten(1))
    torch.testing.assert_close(towards, torch.ones(4))
    torch.testing.assert_close(away, -torch.ones(4))


def test_where_model_and_reference_agree_the_implied_discriminator_is_undecided():
    batch, _, _ = pair()
    loss, terms = make_ddo(alpha=3.0, beta=0.7)(batch)
    assert float(terms["discriminator_loss"]) == pytest.approx(4 * math.log(2), rel=1e-6)
    expected = terms["noise_loss"] + terms["discriminator_loss"]
    torch.testing.assert_close(loss.detach(), expected)


def test_alpha_weighs_the_fakes_alone_and_zero_leaves_them_out():
    batch, real, fake = pair()
    loss, _ = make_ddo(alpha=0.0, beta=1.0)(batch)
    loss.backward()
    assert real.grad is not None
    assert bool((real.grad != 0).any())
    assert fake.grad is not None
    assert not bool((fake.grad != 0).any())


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weight_zero_gives_the_gradient_of_none_to_the_byte(prediction_type):
    options = {"timesteps": (0, 200, 500, 999), "prediction_type": prediction_type}
    batch, real, fake = pair(weight=0.0, **options)
    loss, _ = make_ddo(alpha=1.0, beta=1.0)(batch)
    loss.backward()
    control, plain, _ = pair(weight=0.0, **options)
    expected, _ = noise_only(control)
    expected.backward()
    assert torch.equal(loss, expected)
    assert real.grad is not None
    assert plain.grad is not None
    assert torch.equal(real.grad, plain.grad)
    assert fake.grad is not None
    assert not bool((fake.grad != 0).any())


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", [0, 999])
def test_loss_and_gradient_are_finite_at_both_ends_of_the_process(
    beta_schedule, prediction_type, timestep
):
    batch, real, fake = pair(prediction_type=prediction_type, timesteps=(timestep,) * 4)
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000)
    loss, terms = make_ddo(alpha=1.0, beta=5.0)(replace(batch, alphas_cumprod=alphas_cumprod))
    loss.backward()
    assert all(bool(torch.isfinite(value)) for value in [loss, *terms.values()])
    assert all(bool(torch.isfinite(output.grad).all()) for output in (real, fake))


def test_a_model_far_from_its_reference_gives_a_finite_loss():
    batch, _, _ = pair()
    assert batch.fake is not None
    far = replace(batch.fake, output=1e3 * batch.fake.target())
    away = replace(batch, output=-1e3 * batch.target(), fake=far)
    loss, _ = make_ddo(alpha=1.0, beta=5.0)(away)
    assert bool(torch.isfinite(loss))


# --- In the training loop ---


def make_setup(weight: float, *, plain: bool = False, fake_mean: float = -1.0) -> Setup:
    """Real latents around +1, fakes around ``fake_mean``; the reference is the tiny network."""
    stream = torch.Generator().manual_seed(0)

    def draw(mean: float, rows: int) -> torch.Tensor:
        return mean + 0.1 * torch.randn(rows, 4, 8, 8, generator=stream)

    train, val, fakes, val_fakes = draw(1, 16), draw(1, 8), draw(fake_mean, 8), draw(fake_mean, 4)
    criterion = Criterion(
        objective=noise_only if plain else make_ddo(alpha=1.0, beta=1.0),
        weight=weight,
        discriminator=None,
        diffusion=DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction"),
        precision="fp32",
        where=torch.device("cpu"),
        reference=None if plain else frozen_copy(build_unet(CONFIG, seed=0)),
    )
    return Setup(
        params=BaseParams(None, 3, None, 8, 1e-3, 0, 0.5, 10.0, 1),
        criterion=criterion,
        train=train,
        val=val,
        seed=0,
        stage="train_diffusion",
        iteration=0,
        fakes=None if plain else fakes,
        val_fakes=None if plain else val_fakes,
    )


def run(setup: Setup) -> tuple[list[dict[str, float]], Denoiser]:
    denoiser = build_unet(CONFIG, seed=0)
    rows = train_diffusion(setup, denoiser, lambda items: items, lambda *_: None)
    return rows, denoiser


def test_training_with_weight_zero_gives_the_weights_of_none_to_the_byte():
    _, ddo = run(make_setup(0.0))
    _, none = run(make_setup(0.0, plain=True))
    weights = none.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ddo.state_dict().items())


def test_training_makes_the_implied_discriminator_tell_reals_from_fakes():
    rows, _ = run(make_setup(10.0))
    undecided = 2 * math.log(2)
    assert rows[0]["discriminator_loss"] > rows[-1]["discriminator_loss"]
    assert rows[-1]["val_discriminator_loss"] < undecided


def test_training_leaves_the_reference_as_it_was():
    setup = make_setup(1.0)
    assert isinstance(setup.criterion.reference, Denoiser)
    before = {k: v.clone() for k, v in setup.criterion.reference.state_dict().items()}
    run(setup)
    after = setup.criterion.reference.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


# --- Fakes weighted by the trained discriminator ---


class Mean(torch.nn.Module):
    """Takes latents of a large mean for real."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return 5 * latents.mean((1, 2, 3))


def judged_pair() -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Fakes of means -1, -1, 1 and 1: two that the discriminator doubts, two that it believes."""
    batch, real, fake = pair(timesteps=(200,) * 4)
    assert batch.fake is not None
    means = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(4, 1, 1, 1)
    fakes = replace(batch.fake, x0=means.expand_as(batch.fake.x0), discriminator=Mean())
    return replace(batch, fake=fakes, discriminator=Mean()), real, fake


def test_weights_grow_with_the_doubt_of_the_discriminator_and_have_mean_one():
    batch, _, _ = judged_pair()
    assert batch.fake is not None
    weights = fake_weights(batch.fake)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert weights[0] == weights[1] > 10 * weights[2]  # sigmoid(5) and sigmoid(-5)
    assert not weights.requires_grad


def test_doubted_fakes_are_pushed_away_and_believed_ones_are_left():
    batch, _, fake = judged_pair()
    loss, _ = make_ddo(alpha=1.0, beta=1.0, weighted=True)(batch)
    loss.backward()
    assert fake.grad is not None
    sizes = fake.grad.flatten(1).norm(dim=1)
    assert float(sizes[:2].min()) > 10 * float(sizes[2:].max())


def test_an_undecided_discriminator_makes_weighted_ddo_plain_ddo():
    batch, _, _ = judged_pair()
    assert batch.fake is not None
    undecided = replace(batch.fake, x0=torch.zeros_like(batch.fake.x0))
    batch = replace(batch, fake=undecided)
    plain, _ = make_ddo(alpha=1.0, beta=1.0)(batch)
    weighted, _ = make_ddo(alpha=1.0, beta=1.0, weighted=True)(batch)
    torch.testing.assert_close(weighted, plain)

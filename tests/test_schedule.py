"""The forward process and its conversions, against diffusers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from advloop.core.errors import UserError
from advloop.schedule import (
    add_noise,
    clear_timesteps,
    make_alphas_cumprod,
    predict_eps,
    predict_x0,
    spaced_timesteps,
    spread_timesteps,
    stratified_timesteps,
    training_target,
)

SCHEDULES = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},  # latent diffusion's values
    "squaredcos_cap_v2": {},
}
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
TIMESTEPS = torch.tensor([0, 1, 250, 500, 900, 999])


def reference(beta_schedule: str, prediction_type: str = "epsilon", steps: int = 1000):
    return DDPMScheduler(
        num_train_timesteps=steps,
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        clip_sample=False,
        **SCHEDULES[beta_schedule],
    )


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """(x0, eps), one sample a timestep."""
    stream = torch.Generator().manual_seed(0)
    shape = (len(TIMESTEPS), 4, 8, 8)
    return torch.randn(shape, generator=stream), torch.randn(shape, generator=stream)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 1000])
def test_alphas_cumprod_are_those_of_diffusers(beta_schedule, steps):
    ours = make_alphas_cumprod(beta_schedule, steps)
    assert ours.dtype == torch.float32
    # diffusers multiplies a thousand float32 factors, each off by up to 6e-8 of itself;
    # the last cosine factor is 0.001, where the rounding of 1 - beta weighs 6e-5
    theirs = reference(beta_schedule, steps=steps).alphas_cumprod
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=0)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_alphas_cumprod_fall_strictly_between_one_and_zero(beta_schedule):
    longest = 10_000  # the largest diffusion.num_train_timesteps
    for steps in (1000, longest):
        values = make_alphas_cumprod(beta_schedule, steps)
        assert bool((values.diff() <= 0 if steps == longest else values.diff() < 0).all())
        assert 0 < float(values[-1]) < float(values[0]) < 1


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(UserError, match=r"beta_schedule=sigmoid"):
        make_alphas_cumprod("sigmoid", 1000)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_add_noise_is_that_of_diffusers_with_a_timestep_for_every_sample(beta_schedule):
    x0, eps = pair()
    scheduler = reference(beta_schedule)
    ours = add_noise(x0, eps, TIMESTEPS, scheduler.alphas_cumprod)
    torch.testing.assert_close(ours, scheduler.add_noise(x0, eps, TIMESTEPS))


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_the_velocity_target_is_that_of_diffusers(beta_schedule):
    x0, eps = pair()
    scheduler = reference(beta_schedule, "v_prediction")
    ours = training_target(x0, eps, TIMESTEPS, scheduler.alphas_cumprod, "v_prediction")
    torch.testing.assert_close(ours, scheduler.get_velocity(x0, eps, TIMESTEPS))


def test_the_targets_of_epsilon_and_sample_are_noise_and_clean_latents():
    x0, eps = pair()
    alphas_cumprod = make_alphas_cumprod("linear", 1000)
    assert torch.equal(training_target(x0, eps, TIMESTEPS, alphas_cumprod, "epsilon"), eps)
    assert torch.equal(training_target(x0, eps, TIMESTEPS, alphas_cumprod, "sample"), x0)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_predicted_x0_is_that_of_diffusers(beta_schedule, prediction_type):
    noisy, output = pair()
    scheduler = reference(beta_schedule, prediction_type)
    ours = predict_x0(output, noisy, TIMESTEPS, scheduler.alphas_cumprod, prediction_type)
    for index, timestep in enumerate(TIMESTEPS.tolist()):
        step = scheduler.step(output[index], timestep, noisy[index])
        torch.testing.assert_close(ours[index], step.pred_original_sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_predicted_eps_is_what_diffusers_steps_along(beta_schedule, prediction_type):
    """One DDIM step of diffusers from t to t - 1 must be sqrt(a) x0 + sqrt(1 - a) eps."""
    noisy, output = (values.double() for values in pair())
    scheduler = DDIMScheduler(
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        clip_sample=False,
        **SCHEDULES[beta_schedule],
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(1000)
    alphas_cumprod = scheduler.alphas_cumprod
    x0 = predict_x0(output, noisy, TIMESTEPS, alphas_cumprod, prediction_type)
    eps = predict_eps(output, noisy, TIMESTEPS, alphas_cumprod, prediction_type)
    for index, timestep in list(enumerate(TIMESTEPS.tolist()))[1:]:  # t = 0 has no t - 1
        earlier = alphas_cumprod[timestep - 1]
        ours = earlier.sqrt() * x0[index] + (1 - earlier).sqrt() * eps[index]
        theirs = scheduler.step(output[index], timestep, noisy[index]).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_target_as_output_gives_back_clean_latents_and_noise(beta_schedule, prediction_type):
    x0, eps = (values.double() for values in pair())
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000).double()
    noisy = add_noise(x0, eps, TIMESTEPS, alphas_cumprod)
    target = training_target(x0, eps, TIMESTEPS, alphas_cumprod, prediction_type)
    arguments = (target, noisy, TIMESTEPS, alphas_cumprod, prediction_type)
    # in double precision the worst amplification, 1 / sqrt(2e-9), leaves ten digits
    torch.testing.assert_close(predict_x0(*arguments), x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(predict_eps(*arguments), eps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 25, 40, 50, 100, 250, 300, 999, 1000])
def test_spaced_timesteps_are_the_trailing_spacing_of_diffusers(count):
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    scheduler.set_timesteps(count)
    assert spaced_timesteps(1000, count) == scheduler.timesteps.tolist()


def test_spaced_timesteps_start_at_the_last_one_and_fall_strictly_for_every_step_count():
    for count in range(1, 1001):
        steps = spaced_timesteps(1000, count)
        assert len(steps) == count
        assert steps[0] == 999
        assert steps[-1] >= 0
        assert all(later < earlier for earlier, later in pairwise(steps))


def test_spaced_timesteps_are_within_rounding_of_the_exact_spacing():
    """diffusers' own list drifts at some counts: it sums a stride, and may even end on t = -1."""
    for count in range(1, 1001):
        for i, ours in enumerate(spaced_timesteps(1000, count)):
            # |ours - (999 - 1000 i / count)| <= 1/2, in whole numbers
            assert 2 * abs(ours * count - 999 * count + 1000 * i) <= count


@pytest.mark.parametrize(("count", "steps"), [(1, 1000), (7, 1000), (128, 1000), (32, 10)])
def test_stratified_timesteps_are_one_of_each_stratum(count, steps):
    stream = torch.Generator().manual_seed(0)
    for _ in range(100):
        drawn = stratified_timesteps(count, steps, stream)
        assert drawn.dtype == torch.long
        places = drawn.double() * count / steps
        strata = torch.arange(count)
        # a timestep is the floor of a place: it may lie up to one timestep below its stratum
        assert bool((places < strata + 1).all())
        assert bool((places > strata - count / steps).all())
        assert int(drawn.max()) < steps


def test_stratified_timesteps_are_uniform_over_all_timesteps():
    stream = torch.Generator().manual_seed(0)
    drawn = torch.cat([stratified_timesteps(16, 10, stream) for _ in range(2000)])
    shares = torch.bincount(drawn, minlength=10) / len(drawn)
    # at most the standard error of independent draws, sqrt(0.09 / 32,000) = 0.0017
    torch.testing.assert_close(shares, torch.full((10,), 0.1), rtol=0, atol=4 * 0.0017)


@pytest.mark.parametrize(("count", "limit"), [(1, 1000), (600, 497), (50, 497), (7, 7), (30, 7)])
def test_spread_timesteps_visit_every_part_of_the_range_equally_often_in_random_order(count, limit):
    drawn = spread_timesteps(count, limit, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.long
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < limit
    visits = torch.bincount(drawn, minlength=limit)
    assert int(visits.max()) <= -(-count // limit)
    assert int(visits.min()) >= count // limit
    assert count < 10 or not torch.equal(drawn, drawn.sort().values)


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("least", [0.01, 0.5, 0.9])
def test_clear_timesteps_are_exactly_those_with_that_much_alpha_bar(beta_schedule, least):
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000)
    count = clear_timesteps(alphas_cumprod, least, "key")
    assert 0 < count < 1000
    assert float(alphas_cumprod[count - 1]) >= least > float(alphas_cumprod[count])


def test_an_alpha_bar_that_no_timestep_has_is_refused_by_its_parameter():
    with pytest.raises(UserError, match=r"^generate\.some=0\.999: .* at most 0\.9721$"):
        clear_timesteps(make_alphas_cumprod("squaredcos_cap_v2", 10), 0.999, "generate.some")

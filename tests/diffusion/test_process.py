"""The forward process and its conversions, against diffusers."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from refusal import refusal
from small_params import diffusion_params

from advloop.core.errors import UserError
from advloop.diffusion.process import midpoint_timesteps, stratified_timesteps
from advloop.diffusion.processes import process_of
from advloop.diffusion.variance_preserving import (
    VariancePreserving,
    make_alphas_cumprod,
    trailing_timesteps,
    with_zero_terminal_snr,
)
from advloop.params.diffusion import BetaSchedule

SCHEDULES = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},  # latent diffusion's values
    "squaredcos_cap_v2": {},
}
TIMESTEPS = torch.tensor([0, 1, 250, 500, 900, 999])
X0, EPS = torch.randn(2, len(TIMESTEPS), 4, 8, 8, generator=torch.Generator().manual_seed(0))

each_schedule = pytest.mark.parametrize("beta_schedule", SCHEDULES)
each_type = pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])


def scheduler_of(kind, beta_schedule: str, prediction_type: str = "epsilon", steps: int = 1000):
    return kind(
        num_train_timesteps=steps,
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        clip_sample=False,
        **SCHEDULES[beta_schedule],
    )


# --- Schedules ---


@each_schedule
@pytest.mark.parametrize("steps", [10, 1000])
def test_alphas_cumprod_are_those_of_diffusers(beta_schedule, steps):
    ours = make_alphas_cumprod(beta_schedule, steps)
    assert ours.dtype == torch.float32
    # diffusers multiplies a thousand float32 factors, each off by up to 6e-8 of itself;
    # the last cosine factor is 0.001, where the rounding of 1 - beta weighs 6e-5
    theirs = scheduler_of(DDPMScheduler, beta_schedule, steps=steps).alphas_cumprod
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=0)


@each_schedule
def test_alphas_cumprod_fall_strictly_between_one_and_zero(beta_schedule):
    longest = 10_000  # the largest diffusion.num_train_timesteps
    for steps in (1000, longest):
        values = make_alphas_cumprod(beta_schedule, steps)
        assert bool((values.diff() <= 0 if steps == longest else values.diff() < 0).all())
        assert 0 < float(values[-1]) < float(values[0]) < 1


@each_schedule
def test_zero_terminal_snr_is_that_of_diffusers_and_leaves_the_first_timestep(beta_schedule):
    options = SCHEDULES[beta_schedule] | {"rescale_betas_zero_snr": True}
    theirs = DDIMScheduler(beta_schedule=beta_schedule, **options).alphas_cumprod
    before = make_alphas_cumprod(beta_schedule, 1000)
    ours = with_zero_terminal_snr(before)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-7)
    assert float(ours[-1]) == 0
    assert float(ours[0]) == pytest.approx(float(before[0]), rel=1e-6)


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(UserError, match=r"beta_schedule=sigmoid"):
        make_alphas_cumprod("sigmoid", 1000)


# --- Conversions ---


@each_schedule
def test_noisy_latents_and_the_velocity_target_are_those_of_diffusers(beta_schedule):
    scheduler = scheduler_of(DDPMScheduler, beta_schedule)
    v, epsilon, sample = (
        VariancePreserving(scheduler.alphas_cumprod, kind)
        for kind in ("v_prediction", "epsilon", "sample")
    )
    noisy = v.add_noise(X0, EPS, TIMESTEPS)
    torch.testing.assert_close(noisy, scheduler.add_noise(X0, EPS, TIMESTEPS))
    velocity = v.target(X0, EPS, TIMESTEPS)
    torch.testing.assert_close(velocity, scheduler.get_velocity(X0, EPS, TIMESTEPS))
    assert torch.equal(epsilon.target(X0, EPS, TIMESTEPS), EPS)
    assert torch.equal(sample.target(X0, EPS, TIMESTEPS), X0)


@each_schedule
@each_type
def test_predicted_x0_and_eps_are_those_that_diffusers_steps_with(beta_schedule, prediction_type):
    """One DDIM step of diffusers from t to t - 1 must be sqrt(a) x0 + sqrt(1 - a) eps."""
    noisy, output = X0.double(), EPS.double()
    scheduler = scheduler_of(DDIMScheduler, beta_schedule, prediction_type)
    scheduler.alphas_cumprod = alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(1000)
    process = VariancePreserving(alphas_cumprod, prediction_type)
    x0 = process.predict_x0(output, noisy, TIMESTEPS)
    eps = process.predict_eps(output, noisy, TIMESTEPS)
    for index, timestep in enumerate(TIMESTEPS.tolist()):
        theirs = scheduler.step(output[index], timestep, noisy[index])
        torch.testing.assert_close(x0[index], theirs.pred_original_sample, rtol=1e-9, atol=1e-9)
        if timestep > 0:
            earlier = alphas_cumprod[timestep - 1]
            ours = earlier.sqrt() * x0[index] + (1 - earlier).sqrt() * eps[index]
            torch.testing.assert_close(ours, theirs.prev_sample, rtol=1e-9, atol=1e-9)


@each_schedule
@each_type
def test_the_target_as_output_gives_back_clean_latents_and_noise(beta_schedule, prediction_type):
    x0, eps = X0.double(), EPS.double()
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000).double()
    process = VariancePreserving(alphas_cumprod, prediction_type)
    noisy, target = process.add_noise(x0, eps, TIMESTEPS), process.target(x0, eps, TIMESTEPS)
    arguments = (target, noisy, TIMESTEPS)
    # in double precision the worst amplification, 1 / sqrt(2e-9), leaves ten digits
    torch.testing.assert_close(process.predict_x0(*arguments), x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(process.predict_eps(*arguments), eps, rtol=0, atol=1e-9)


# --- Timesteps ---


@pytest.mark.parametrize("count", [1, 2, 3, 7, 25, 40, 50, 100, 250, 300, 999, 1000])
def test_trailing_timesteps_are_those_of_diffusers(count):
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    scheduler.set_timesteps(count)
    assert trailing_timesteps(1000, count) == scheduler.timesteps.tolist()


def test_trailing_timesteps_fall_from_the_last_one_within_rounding_of_the_exact_spacing():
    """diffusers' own list drifts at some counts: it sums a stride, and may even end on t = -1."""
    for count in range(1, 1001):
        steps = trailing_timesteps(1000, count)
        assert len(steps) == count
        assert steps[0] == 999
        assert steps[-1] >= 0
        assert all(later < earlier for earlier, later in pairwise(steps))
        for i, ours in enumerate(steps):
            # |ours - (999 - 1000 i / count)| <= 1/2, in whole numbers
            assert 2 * abs(ours * count - 999 * count + 1000 * i) <= count


@pytest.mark.parametrize(("count", "steps"), [(1, 1000), (7, 1000), (128, 1000), (32, 10)])
def test_stratified_timesteps_are_one_of_each_stratum(count, steps):
    stream, strata = torch.Generator().manual_seed(0), torch.arange(count)
    for _ in range(100):
        timesteps = stratified_timesteps(count, steps, stream)
        assert timesteps.dtype == torch.long
        positions = timesteps.double() * count / steps
        # a timestep is rounded down: it may be up to one timestep below its stratum
        assert bool((positions < strata + 1).all())
        assert bool((positions > strata - count / steps).all())
        assert int(timesteps.max()) < steps


def test_stratified_timesteps_are_uniform_over_all_timesteps():
    stream = torch.Generator().manual_seed(0)
    timesteps = torch.cat([stratified_timesteps(16, 10, stream) for _ in range(2000)])
    shares = torch.bincount(timesteps, minlength=10) / len(timesteps)
    # at most the standard error of independent draws, sqrt(0.09 / 32,000) = 0.0017
    torch.testing.assert_close(shares, torch.full((10,), 0.1), rtol=0, atol=4 * 0.0017)


@pytest.mark.parametrize(("count", "limit"), [(1, 1000), (600, 497), (50, 497), (7, 7), (30, 7)])
def test_midpoint_timesteps_visit_every_part_equally_often_in_random_order(count, limit):
    timesteps = midpoint_timesteps(count, limit, torch.Generator().manual_seed(0))
    assert timesteps.dtype == torch.long
    assert 0 <= int(timesteps.min()) <= int(timesteps.max()) < limit
    visits = torch.bincount(timesteps, minlength=limit)
    assert count // limit <= int(visits.min()) <= int(visits.max()) <= -(-count // limit)
    assert count < 10 or not torch.equal(timesteps, timesteps.sort().values)


@each_schedule
@pytest.mark.parametrize("least", [0.01, 0.5, 0.9])
def test_the_timestep_limit_separates_the_timesteps_with_that_alpha_bar(beta_schedule, least):
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000)
    limit = VariancePreserving(alphas_cumprod, "sample").timestep_limit(least, "key")
    assert float(alphas_cumprod[limit - 1]) >= least > float(alphas_cumprod[limit])


def test_an_alpha_bar_that_no_timestep_has_is_refused_by_its_parameter():
    process = process_of(diffusion_params(num_train_timesteps=10))
    message = refusal(process.timestep_limit, 0.999, "generate.some")
    assert message.startswith("generate.some=0.999: ")
    assert message.endswith("at most 0.9721")


@pytest.mark.parametrize("steps", [2, 3, 10, 1000, 10_000])
@pytest.mark.parametrize("schedule", get_args(BetaSchedule))
def test_highest_alpha_bar_is_known_without_torch(schedule: BetaSchedule, steps: int):
    params = diffusion_params(beta_schedule=schedule, num_train_timesteps=steps)
    highest = float(process_of(params).alpha_bars.max())
    assert params.max_alpha_bar() == pytest.approx(highest, rel=1e-6)

"""Rectified flow and the process of EDM, against diffusers' own schedulers and their papers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from small_params import EDM, FLOW, HEUN_EDM, HEUN_FLOW, diffusion_params

from advloop.core.random import generator, noise_for
from advloop.diffusion.process import Process
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import sample, sample_preview
from advloop.diffusion.solvers import solver_steps
from advloop.diffusion.unrolled import sample_with_gradient
from advloop.export.schedulers import scheduler_config
from advloop.params.diffusion import DiffusionParams, EdmParams

SHAPE = (4, 8, 8)
X0, EPS = torch.randn(2, 6, *SHAPE, generator=torch.Generator().manual_seed(0))
TIMESTEPS = torch.tensor([0, 1, 250, 500, 900, 999])
FLOWS = [FLOW.model_copy(update={"shift": shift}) for shift in (1.0, 3.0, 0.5)]
EDMS = [
    EDM.model_copy(update=changes)
    for changes in ({}, {"prediction_type": "v_prediction"}, {"sigma_data": 1.0, "rho": 3.0})
]
ALL = [*FLOWS, *EDMS, HEUN_FLOW, HEUN_EDM, FLOW.model_copy(update={"num_train_timesteps": 50})]


def title(params: DiffusionParams) -> str:
    return "-".join(str(value) for value in params.model_dump().values())


each_flow = pytest.mark.parametrize("params", FLOWS, ids=title)
each_edm = pytest.mark.parametrize("params", EDMS, ids=title)
each_process = pytest.mark.parametrize("params", ALL, ids=title)


def smooth_model(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """A bounded function of both arguments."""
    return torch.tanh(0.5 * noisy.roll(1, 1) + 0.3 * noisy + time.view(-1, 1, 1, 1) / 1000)


@torch.no_grad()
def diffusers_loop(scheduler: Any, noise: torch.Tensor, **timesteps: Any) -> torch.Tensor:
    scheduler.set_timesteps(**timesteps)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        scaled = latents
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(latents, t)
        output = smooth_model(scaled, t.expand(len(latents)))
        latents = scheduler.step(output, t, latents).prev_sample
    return latents


# --- rectified flow ---


@each_flow
def test_noisy_latents_and_time_of_a_flow_are_those_of_diffusers(params):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler_config(params))
    process = process_of(params)
    noisy = process.add_noise(X0, EPS, TIMESTEPS)
    _, time = process.inputs(noisy, TIMESTEPS)
    levels = 999 - TIMESTEPS  # diffusers' list falls
    torch.testing.assert_close(time, scheduler.timesteps[levels])
    expected = scheduler.scale_noise(X0, scheduler.timesteps[levels], EPS)
    torch.testing.assert_close(noisy, expected)


@each_flow
@pytest.mark.parametrize("count", [1, 4, 25])
def test_samples_of_a_flow_are_those_of_diffusers(params, count):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler_config(params))
    noise = noise_for(range(3), SHAPE, 0)
    theirs = diffusers_loop(scheduler, noise, sigmas=np.linspace(1, 1 / count, count))
    ours = sample(process_of(params), smooth_model, noise, count)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@each_flow
@pytest.mark.parametrize("count", [1, 4, 25])
def test_heun_samples_of_a_flow_are_those_of_diffusers(params, count):
    params = params.model_copy(update={"sampler": "heun"})
    config = scheduler_config(params)
    assert config["_class_name"] == "FlowMatchHeunDiscreteScheduler"
    scheduler = FlowMatchHeunDiscreteScheduler.from_config(config)
    noise = noise_for(range(3), SHAPE, 0)
    theirs = diffusers_loop(scheduler, noise, num_inference_steps=count)
    ours = sample(process_of(params), smooth_model, noise, count)
    # diffusers divides a difference by the lowest level, 0.001, which takes digits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-4)


# --- EDM ---


@each_edm
def test_inputs_and_predicted_latents_of_edm_are_those_of_diffusers(params):
    scheduler = EDMEulerScheduler.from_config(scheduler_config(params))
    process = process_of(params)
    noisy = process.add_noise(X0, EPS, TIMESTEPS)
    seen, time = process.inputs(noisy, TIMESTEPS)
    x0 = process.predict_x0(EPS, noisy, TIMESTEPS)
    for k, sigma in enumerate(process.sigmas[TIMESTEPS]):
        torch.testing.assert_close(noisy[k], X0[k] + sigma * EPS[k])
        torch.testing.assert_close(seen[k], scheduler.precondition_inputs(noisy[k], sigma))
        torch.testing.assert_close(time[k], scheduler.precondition_noise(sigma))
        torch.testing.assert_close(x0[k], scheduler.precondition_outputs(noisy[k], EPS[k], sigma))


@each_edm
@pytest.mark.parametrize("count", [1, 4, 25])
def test_samples_of_edm_are_those_of_diffusers(params, count):
    scheduler = EDMEulerScheduler.from_config(scheduler_config(params))
    noise = noise_for(range(3), SHAPE, 0)
    theirs = diffusers_loop(scheduler, noise, num_inference_steps=count)
    ours = sample(process_of(params), smooth_model, noise, count)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def algorithm_1(params: EdmParams, noise: torch.Tensor, count: int) -> torch.Tensor:
    """Of Karras et al. 2022, with S_churn = 0 and the D of their Eq. 7, in its notation."""
    least, most, rho = params.sigma_min, params.sigma_max, params.rho
    t = [
        (most ** (1 / rho) + i / max(1, count - 1) * (least ** (1 / rho) - most ** (1 / rho)))
        ** rho
        for i in range(count)
    ]
    t += [0.0]

    def D(x: torch.Tensor, sigma: float) -> torch.Tensor:
        data = params.sigma_data
        both = sigma**2 + data**2
        sign = -1 if params.prediction_type == "v_prediction" else 1
        c_in, c_noise = both**-0.5, torch.full((len(x),), math.log(sigma) / 4)
        c_skip, c_out = data**2 / both, sign * sigma * data * both**-0.5
        return c_skip * x + c_out * smooth_model(c_in * x, c_noise)

    x = noise * math.sqrt(most**2 + 1)
    for i in range(count):
        d = (x - D(x, t[i])) / t[i]
        x_next = x + (t[i + 1] - t[i]) * d
        if t[i + 1] != 0:
            d_next = (x_next - D(x_next, t[i + 1])) / t[i + 1]
            x_next = x + (t[i + 1] - t[i]) * (d / 2 + d_next / 2)
        x = x_next
    return x


@each_edm
@pytest.mark.parametrize("count", [1, 4, 25])
def test_heun_samples_of_edm_are_those_of_algorithm_1(params, count):
    noise = noise_for(range(3), SHAPE, 0).double()
    process = in_double(process_of(params.model_copy(update={"sampler": "heun"})))
    ours = sample(process, smooth_model, noise, count)
    torch.testing.assert_close(ours, algorithm_1(params, noise, count), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("params", [FLOW, EDM], ids=["flow", "edm"])
def test_twice_as_many_steps_of_heun_are_four_times_as_exact(params):
    """And those of Euler twice: between the same two levels, of which the last is not 0."""
    noise = noise_for(range(1), SHAPE, 0).double()

    def end(sampler: str, count: int) -> torch.Tensor:
        process = in_double(process_of(params.model_copy(update={"sampler": sampler})))
        ends = torch.linspace(0.9, 0.3, count + 1, dtype=torch.float64).tolist()
        latents = noise
        for step in solver_steps(process._slope, ends, sampler):
            latents = step(smooth_model, latents)
        return latents

    best = end("heun", 4096)
    for sampler, order in (("euler", 1), ("heun", 2)):
        few, many = ((end(sampler, count) - best).norm() for count in (16, 32))
        assert float(few / many) == pytest.approx(2**order, rel=0.1)


def test_noise_levels_of_edm_have_the_distribution_of_the_paper():
    logs = process_of(EDM).sigmas.log()
    assert float(logs.mean()) == pytest.approx(EDM.p_mean, abs=1e-3)
    assert float(logs.std()) == pytest.approx(EDM.p_std, rel=0.01)


@each_edm
def test_error_of_the_output_is_the_papers_weighted_error_of_the_latents(params):
    """lambda(sigma) |D - x0|^2 with lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
    process = process_of(params)
    noisy = process.add_noise(X0, EPS, TIMESTEPS)
    wrong = process.target(X0, EPS, TIMESTEPS) + 0.1
    sigma = process.sigmas[TIMESTEPS].view(-1, 1, 1, 1)
    weight = (sigma**2 + params.sigma_data**2) / (sigma * params.sigma_data) ** 2
    error = process.predict_x0(wrong, noisy, TIMESTEPS) - X0
    weighted = (weight * error**2).mean((1, 2, 3))
    # float32 takes a small difference of large numbers at the noisiest levels
    torch.testing.assert_close(weighted, torch.full_like(weighted, 0.01), rtol=2e-2, atol=0)


# --- both ---


@each_process
def test_target_as_output_gives_back_the_clean_latents(params):
    process = process_of(params)
    timesteps = TIMESTEPS.clamp(max=process.num_train_timesteps - 1)
    noisy = process.add_noise(X0, EPS, timesteps)
    found = process.predict_x0(process.target(X0, EPS, timesteps), noisy, timesteps)
    torch.testing.assert_close(found, X0, rtol=1e-3, atol=1e-4)


@each_process
def test_sampling_with_the_best_network_for_one_image_ends_at_that_image(params):
    process, image = process_of(params), X0[:1]

    def best(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        if params.process == "flow":
            sigma = (time / process.num_train_timesteps).view(-1, 1, 1, 1)
            return (noisy - image) / sigma
        sigma = (4 * time).exp().view(-1, 1, 1, 1)
        _, skip, out = process._scales(sigma)
        return (image - skip * noisy / process._scales(sigma)[0]) / out

    for count in (1, 2, 8):
        found = sample(process, best, EPS[:1], count)
        torch.testing.assert_close(found, image, rtol=0, atol=2e-3)


@each_process
def test_alpha_bars_fall_and_the_highest_is_known_without_torch(params):
    alpha_bars = process_of(params).alpha_bars
    assert bool((alpha_bars.diff() < 0).all())
    assert params.max_alpha_bar() == pytest.approx(float(alpha_bars[0]), rel=1e-5)
    assert 0 <= float(alpha_bars[-1]) < 0.05


@pytest.mark.parametrize("params", [diffusion_params(), *ALL], ids=title)
def test_noisy_latents_have_the_share_of_signal_that_alpha_bar_says(params):
    process, timesteps = process_of(params), torch.tensor([3, 20, 40])
    ones, zeros = torch.ones(3, 1, 1, 1), torch.zeros(3, 1, 1, 1)
    signal = process.add_noise(ones, zeros, timesteps).square().flatten()
    noise = process.add_noise(zeros, ones, timesteps).square().flatten()
    torch.testing.assert_close(signal / (signal + noise), process.alpha_bars[timesteps])


@pytest.mark.parametrize("count", [1, 7, 40])
@each_process
def test_a_batch_costs_exactly_the_network_calls_of_its_steps(params, count):
    calls, noise = [], noise_for(range(3), SHAPE, 0)

    def counting(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        calls.append(time)
        return smooth_model(noisy, time)

    process = process_of(params)
    one = sample(process, counting, noise, count)
    assert torch.equal(one, sample_preview(process, counting, noise, count, generator(0)))
    expected = 2 * count - 1 if params.sampler == "heun" else count
    assert process.calls(count) == expected
    assert len(calls) == 2 * expected
    assert all(call.shape == (3,) and call.dtype == torch.float32 for call in calls)
    levels = calls[:1] + calls[1:expected:2] if params.sampler == "heun" else calls[:expected]
    assert all(bool((a > b).all()) for a, b in pairwise(levels))


@each_process
def test_gradient_goes_through_every_step(params):
    """Against finite differences, for a model of one weight."""
    process = in_double(process_of(params))
    noise = noise_for(range(2), SHAPE, 0).double()
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def total(weight: torch.Tensor, *options: Any) -> torch.Tensor:
        def model(noisy: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return weight * torch.tanh(noisy)

        return sample_with_gradient(process, model, noise, 4, *options).square().mean()

    (found,) = torch.autograd.grad(total(w), w)
    assert torch.equal(found, torch.autograd.grad(total(w, None, True), w)[0])
    with torch.no_grad():
        difference = (total(w + 1e-6) - total(w - 1e-6)) / 2e-6
    torch.testing.assert_close(found, difference, rtol=1e-5, atol=0)


def in_double(process: Process) -> Process:
    tensors = {k: v.double() for k, v in vars(process).items() if isinstance(v, torch.Tensor)}
    return replace(process, **tensors)


def test_shift_above_one_spends_more_levels_near_pure_noise():
    plain, shifted = (process_of(flow).sigmas.mean() for flow in FLOWS[:2])
    assert shifted > plain + 0.1
    assert math.isclose(float(process_of(FLOWS[1]).sigmas[-1]), 1.0)

"""Samplers against the loops that diffusers would run with the same network."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from tiny_unet import CONFIG

from advloop.core.runtime import eval_mode, generator
from advloop.sampling import noise_for, sample_ddim, sample_ddpm
from advloop.schedule import make_alphas_cumprod
from advloop.unet import Denoiser, build_unet

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SCHEDULES = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "squaredcos_cap_v2": {},
}
SHAPE = (4, 8, 8)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return build_unet(CONFIG, seed=0).eval()


def smooth_model(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """A bounded function of both arguments, exact in float64."""
    return torch.tanh(0.5 * noisy.roll(1, 1) + 0.3 * noisy + timesteps.view(-1, 1, 1, 1) / 1000)


def in_double(scheduler):
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


def ddim_scheduler(beta_schedule: str, prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        **SCHEDULES[beta_schedule],
    )


def diffusers_loop(scheduler, model, noise, count, **options):
    scheduler.set_timesteps(count)
    latents = noise
    for t in scheduler.timesteps:
        output = model(latents, torch.full((len(latents),), int(t)))
        latents = scheduler.step(output, int(t), latents, **options).prev_sample
    return latents


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("count", [1, 25, 40])
def test_ddim_samples_are_those_of_diffusers(beta_schedule, prediction_type, count):
    scheduler = in_double(ddim_scheduler(beta_schedule, prediction_type))
    noise = noise_for(range(3), SHAPE, 0).double()
    theirs = diffusers_loop(scheduler, smooth_model, noise, count, eta=0.0)
    ours = sample_ddim(smooth_model, noise, scheduler.alphas_cumprod, prediction_type, count)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_ddim_samples_of_a_unet_are_those_of_diffusers(prediction_type, denoiser):
    scheduler = ddim_scheduler("squaredcos_cap_v2", prediction_type)
    noise = noise_for(range(2), SHAPE, 1)
    with torch.no_grad():
        theirs = diffusers_loop(scheduler, denoiser, noise, 10, eta=0.0)
    ours = sample_ddim(denoiser, noise, scheduler.alphas_cumprod, prediction_type, 10)
    # float32: ten steps, each about 1e-6 of the largest value (epsilon starts at x0 of 1e4)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("count", [1, 30, 50, 1000])
def test_ddpm_samples_are_those_of_diffusers_with_the_same_noises(
    beta_schedule, prediction_type, count, monkeypatch
):
    scheduler = in_double(
        DDPMScheduler(
            beta_schedule=beta_schedule,
            prediction_type=prediction_type,
            variance_type="fixed_small",
            clip_sample=False,
            timestep_spacing="trailing",
            **SCHEDULES[beta_schedule],
        )
    )
    noise = noise_for(range(2), SHAPE, 2).double()
    randn = torch.randn  # the same float32 noises for both, in double precision from there on
    monkeypatch.setattr(torch, "randn", lambda *size, **given: randn(*size, **given).double())
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor",
        lambda shape, generator, **_: torch.randn(shape, generator=generator),
    )
    stream = generator(0, "steps")
    theirs = diffusers_loop(scheduler, smooth_model, noise, count, generator=stream)
    ours = sample_ddpm(
        smooth_model,
        noise,
        scheduler.alphas_cumprod,
        prediction_type,
        count,
        generator(0, "steps"),
    )
    # Where the last timestep is not 0, diffusers adds noise of variance 1e-20 to the result:
    # its clamp for a logarithm. Ours adds none; 1e-10 times a normal draw is below 1e-9.
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_ddpm_noise_comes_from_the_stream_it_is_given():
    alphas_cumprod = make_alphas_cumprod("linear", 1000)
    noise = noise_for(range(2), SHAPE, 0)

    def sample(*key: int | str) -> torch.Tensor:
        stream = generator(0, *key)
        return sample_ddpm(smooth_model, noise, alphas_cumprod, "v_prediction", 5, stream)

    assert torch.equal(sample("a"), sample("a"))
    assert not torch.allclose(sample("a"), sample("b"), atol=1e-2)


@pytest.mark.parametrize("count", [1, 7, 40])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_batch_costs_exactly_num_inference_steps_network_calls(count, sampler):
    calls = []

    def counting(noisy, timesteps):
        calls.append(timesteps)
        return smooth_model(noisy, timesteps)

    noise = noise_for(range(3), SHAPE, 0)
    alphas_cumprod = make_alphas_cumprod("linear", 1000)
    if sampler == "ddim":
        sample_ddim(counting, noise, alphas_cumprod, "epsilon", count)
    else:
        sample_ddpm(counting, noise, alphas_cumprod, "epsilon", count, generator(0))
    assert len(calls) == count
    assert all(call.shape == (3,) and call.dtype == torch.long for call in calls)


def test_the_noise_of_a_sample_does_not_depend_on_the_batch_it_is_in():
    together = noise_for(range(7), SHAPE, 3, "generate", 1)
    apart = torch.cat([noise_for([k], SHAPE, 3, "generate", 1) for k in range(7)])
    backwards = noise_for(reversed(range(7)), SHAPE, 3, "generate", 1).flip(0)
    assert torch.equal(together, apart)
    assert torch.equal(together, backwards)


@pytest.mark.parametrize("other", [(4, "generate", 1), (3, "evaluate", 1), (3, "generate", 2)])
def test_the_noise_differs_by_seed_purpose_and_iteration(other):
    here, there = noise_for(range(4), SHAPE, 3, "generate", 1), noise_for(range(4), SHAPE, *other)
    # 1,024 independent pairs: the correlation has standard error 1/32; allow four
    assert abs(float(torch.corrcoef(torch.stack([here.flatten(), there.flatten()]))[0, 1])) < 0.125


def test_samples_of_one_batch_have_unrelated_standard_normal_noise():
    noise = noise_for(range(64), SHAPE, 0).flatten(1)
    # 16,384 draws: the mean has standard error 0.008, the variance 0.011; allow four
    assert abs(float(noise.mean())) < 0.032
    assert abs(float(noise.var()) - 1) < 0.044
    off_diagonal = torch.corrcoef(noise) - torch.eye(64)
    # 2,016 pairs, each with standard error 1/16: the largest is near 3.5 of them; allow five
    assert float(off_diagonal.abs().max()) < 5 / 16


def test_the_batch_size_changes_samples_by_no_more_than_rounding(denoiser):
    alphas_cumprod = make_alphas_cumprod("squaredcos_cap_v2", 1000)

    def draw(size: int) -> torch.Tensor:
        with eval_mode(denoiser):
            return torch.cat(
                [
                    sample_ddim(
                        denoiser,
                        noise_for(range(start, start + size), SHAPE, 0, "generate", 0),
                        alphas_cumprod,
                        "v_prediction",
                        10,
                    )
                    for start in range(0, 6, size)
                ]
            )

    one = draw(6)
    assert float(one.std()) > 0.1  # otherwise any two draws would agree
    for size in (1, 2, 3):
        torch.testing.assert_close(draw(size), one, rtol=1e-4, atol=1e-4)

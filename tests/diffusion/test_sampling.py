"""Samplers against the loops that diffusers would run with the same network."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from small_params import FLOW, HEUN_FLOW, diffusion_params
from tiny_unet import CONFIG

from advloop.core.device import eval_mode
from advloop.core.random import generator, noise_for
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import calls_of, condition_on_labels, sample, sample_preview
from advloop.diffusion.variance_preserving import VariancePreserving
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.params.diffusion import VariancePreservingParams

SCHEDULES = {"linear": {"beta_start": 1e-4, "beta_end": 0.02}, "squaredcos_cap_v2": {}}
SHAPE = (4, 8, 8)
LINEAR = process_of(diffusion_params(beta_schedule="linear"))

each_schedule = pytest.mark.parametrize("beta_schedule", SCHEDULES)
each_type = pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return build_denoiser(CONFIG, seed=0).eval()


def smooth_model(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """A bounded function of both arguments, exact in float64."""
    return torch.tanh(0.5 * noisy.roll(1, 1) + 0.3 * noisy + timesteps.view(-1, 1, 1, 1) / 1000)


def scheduler_of(kind, beta_schedule: str, prediction_type: str, **options):
    scheduler = kind(
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        clip_sample=False,
        timestep_spacing="trailing",
        **SCHEDULES[beta_schedule] | options,
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


@torch.no_grad()
def diffusers_loop(scheduler, model, noise, count, **options):
    scheduler.set_timesteps(count)
    latents = noise
    for t in scheduler.timesteps:
        output = model(latents, torch.full((len(latents),), int(t)))
        latents = scheduler.step(output, int(t), latents, **options).prev_sample
    return latents


@each_schedule
@each_type
@pytest.mark.parametrize("count", [1, 25, 40])
def test_ddim_samples_are_those_of_diffusers(beta_schedule, prediction_type, count):
    scheduler = scheduler_of(DDIMScheduler, beta_schedule, prediction_type)
    noise = noise_for(range(3), SHAPE, 0).double()
    theirs = diffusers_loop(scheduler, smooth_model, noise, count, eta=0.0)
    process = VariancePreserving(scheduler.alphas_cumprod, prediction_type)
    ours = sample(process, smooth_model, noise, count)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@each_schedule
@each_type
@pytest.mark.parametrize("count", [1, 30, 50, 1000])
def test_ddpm_samples_are_those_of_diffusers_with_the_same_noises(
    beta_schedule, prediction_type, count, monkeypatch
):
    scheduler = scheduler_of(
        DDPMScheduler, beta_schedule, prediction_type, variance_type="fixed_small"
    )
    noise = noise_for(range(2), SHAPE, 2).double()
    randn = torch.randn  # the same float32 noises for both, in double precision from there on
    monkeypatch.setattr(torch, "randn", lambda *size, **given: randn(*size, **given).double())
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor",
        lambda shape, generator, **_: torch.randn(shape, generator=generator),
    )
    one, other = generator(0, "steps"), generator(0, "steps")
    theirs = diffusers_loop(scheduler, smooth_model, noise, count, generator=one)
    process = VariancePreserving(scheduler.alphas_cumprod, prediction_type)
    ours = sample_preview(process, smooth_model, noise, count, other)
    # If the last timestep is not 0, diffusers adds noise of variance 1e-20 to the result:
    # its clamp for a logarithm. Ours adds none; 1e-10 times a normal draw is below 1e-9.
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_ddpm_noise_comes_from_the_stream_it_is_given():
    noise = noise_for(range(2), SHAPE, 0)

    def preview(key: str) -> torch.Tensor:
        return sample_preview(LINEAR, smooth_model, noise, 5, generator(0, key))

    assert torch.equal(preview("a"), preview("a"))
    assert not torch.allclose(preview("a"), preview("b"), atol=1e-2)


PROCESSES = [
    diffusion_params(prediction_type, beta_schedule)
    for prediction_type in ("epsilon", "v_prediction", "sample")
    for beta_schedule in (*SCHEDULES, "scaled_linear")
]


def deviation(params: VariancePreservingParams, count: int, error: float) -> float:
    """Of DDIM samples with the best network for latents of variance 1/2, but for its errors.

    error: their deviation, relative to that of the output. The best prediction of x0 is a multiple
    of the noisy latents, and with it eps and v.
    """
    stream = generator(0, "errors")
    alpha_bars = process_of(params).alpha_bars.double()
    process = VariancePreserving(alpha_bars, params.prediction_type)

    def network(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        alpha_bar = alpha_bars[timesteps].view(-1, 1, 1, 1)
        x0 = alpha_bar.sqrt() * 0.5 * noisy / (1 - 0.5 * alpha_bar)
        eps = (1 - alpha_bar).sqrt() * noisy / (1 - 0.5 * alpha_bar)
        output = process.target(x0, eps, timesteps)
        return output + error * output.std() * torch.randn(output.shape, generator=stream)

    noise = noise_for(range(20), SHAPE, 0).double()
    return float(sample(process, network, noise, count).std())


@pytest.mark.parametrize("count", [10, 25, 100])
@pytest.mark.parametrize(
    "process", PROCESSES, ids=lambda p: f"{p.prediction_type}-{p.beta_schedule}"
)
def test_a_network_wrong_by_one_percent_samples_the_right_deviation_in_each_accepted_process(
    process, count
):
    exact, found = deviation(process, count, 0.0), deviation(process, count, 0.01)
    if process.loses_x0():
        assert found > 3 * exact
    else:
        assert found == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("count", [1, 7, 40])
@pytest.mark.parametrize("sampler", [sample, sample_preview])
def test_a_batch_costs_exactly_num_inference_steps_network_calls(count, sampler):
    calls = []

    def counting(noisy, timesteps):
        calls.append(timesteps)
        return smooth_model(noisy, timesteps)

    stream = [generator(0)] if sampler is sample_preview else []
    sampler(LINEAR, counting, noise_for(range(3), SHAPE, 0), count, *stream)
    assert len(calls) == count
    assert all(call.shape == (3,) and call.dtype == torch.long for call in calls)


def test_a_network_that_is_conditioned_on_labels_gets_them_at_every_call():
    def network(noisy, timesteps, labels=None):
        return smooth_model(noisy, timesteps) + (0 if labels is None else labels.view(-1, 1, 1, 1))

    noisy, timesteps, labels = torch.zeros(3, *SHAPE), torch.tensor([1, 5, 9]), torch.arange(3)
    bound = condition_on_labels(network, labels)
    assert torch.equal(bound(noisy, timesteps), network(noisy, timesteps, labels))
    assert condition_on_labels(network, None) is network


def test_guidance_moves_away_from_what_the_network_predicts_without_a_class():
    seen = []

    def network(noisy, timesteps, labels):
        seen.append(len(noisy))
        assert torch.equal(timesteps[:3], timesteps[3:]) or len(noisy) == 3
        return smooth_model(noisy, timesteps) * (1 + labels.view(-1, 1, 1, 1))

    noisy, timesteps, labels = (
        torch.ones(3, *SHAPE),
        torch.tensor([1, 5, 9]),
        torch.tensor([0, 1, 2]),
    )
    with_class = network(noisy, timesteps, labels)
    without = network(noisy, timesteps, torch.full((3,), 7))
    for scale in (0.0, 1.0, 4.0):
        found = condition_on_labels(network, labels, scale, 7)(noisy, timesteps)
        torch.testing.assert_close(found, without + scale * (with_class - without))
    assert seen[2:] == [6, 3, 6], "a guided call is two network calls for each sample"
    for params, calls in ((diffusion_params(), 8), (FLOW, 8), (HEUN_FLOW, 15)):
        process = process_of(params)
        assert (calls_of(process, 8, 1.0), calls_of(process, 8, 4.0)) == (calls, 2 * calls)


def test_samples_of_one_batch_have_unrelated_standard_normal_noise():
    noise = noise_for(range(64), SHAPE, 0).flatten(1)
    # 16,384 draws: the mean has standard error 0.008, the variance 0.011; allow four
    assert abs(float(noise.mean())) < 0.032
    assert abs(float(noise.var()) - 1) < 0.044
    off_diagonal = torch.corrcoef(noise) - torch.eye(64)
    # 2,016 pairs, each with standard error 1/16: the largest is near 3.5 of them; allow five
    assert float(off_diagonal.abs().max()) < 5 / 16


def test_the_batch_size_changes_samples_by_no_more_than_rounding(denoiser):
    process = process_of(diffusion_params())

    def draw(start: int, size: int) -> torch.Tensor:
        noise = noise_for(range(start, start + size), SHAPE, 0, "generate", 0)
        with eval_mode(denoiser):
            return sample(process, denoiser, noise, 10)

    whole = draw(0, 6)
    assert float(whole.std()) > 0.1  # otherwise any two samples would agree
    for size in (1, 2, 3):
        parts = torch.cat([draw(start, size) for start in range(0, 6, size)])
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)

"""The held-out measurement: the same problem at every call, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objective_files import objective_params
from recorder import Recorder
from small_diffusion import copy_weights, equal, make_criterion
from small_params import diffusion_params
from tiny_unet import CONFIG
from torch import nn

from advloop.diffusion.criterion import Criterion, held_out
from advloop.diffusion.processes import process_of
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.objectives import recipe_of


@pytest.fixture
def criterion() -> Criterion:
    return make_criterion("seed")


@pytest.fixture
def denoiser() -> Denoiser:
    return build_denoiser(CONFIG, seed=0)


def latents(count: int, shape: tuple[int, ...] = (4, 8, 8)) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_the_held_out_loss_is_the_same_at_every_call(criterion, denoiser):
    first = held_out(criterion, denoiser, latents(20), 0, 8)
    torch.randn(7)  # what the global stream did in between does not matter
    before = torch.get_rng_state()
    assert held_out(criterion, denoiser, latents(20), 0, 8) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert held_out(criterion, denoiser, latents(20), 1, 8) != first


def test_the_held_out_measurement_reports_the_loss_and_every_term(criterion, denoiser):
    measured = held_out(criterion, denoiser, latents(20), 0, 8)
    assert list(measured) == ["loss", "noise_loss", "discriminator_loss", "viability_score"]
    expected = measured["noise_loss"] + 0.1 * measured["discriminator_loss"]
    assert measured["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 5, 5)])
def test_the_held_out_loss_does_not_depend_on_the_batch_size(criterion, shape):
    """(4, 5, 5): latents whose size is no multiple of 16, of 40-pixel images for one."""
    whole = Recorder()
    reference = held_out(criterion, whole, latents(20, shape), 0, 20)
    for size in (1, 7, 19):
        parts = Recorder()
        measured = held_out(criterion, parts, latents(20, shape), 0, size)
        assert torch.equal(torch.cat(parts.timesteps), whole.timesteps[0])
        torch.testing.assert_close(torch.cat(parts.noisy), whole.noisy[0])
        assert measured == pytest.approx(reference, rel=1e-5)


class Network(nn.Module):
    """Predicts better or worse, as a scale says, and each class and timestep otherwise."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, noisy, timesteps, labels):
        return self.scale * noisy + (labels / 10 + timesteps / 1000).view(-1, 1, 1, 1)


class Judge(nn.Module):
    """A discriminator that is surer of some latents, classes and timesteps than of others."""

    def __init__(self, noise_conditioned: bool) -> None:
        super().__init__()
        self.noise_conditioned = noise_conditioned

    def forward(self, latents, *timesteps, labels):
        return 9 * latents.mean((1, 2, 3)) + labels + sum(timesteps, torch.zeros(1)) / 100


@pytest.mark.parametrize(
    ("file", "noise_conditioned"),
    [("none", False), ("seed", False), ("x0", False), ("x0", True), ("ddo_weighted", False)],
)
def test_the_held_out_values_of_an_objective_do_not_depend_on_the_batch_size(
    criterion, file, noise_conditioned
):
    """Neither if it weighs the samples of a batch, nor if it noises them again."""
    params = objective_params(file)
    objective = recipe_of(params.name).make(params)
    judge, reference = Judge(noise_conditioned), Network(0.4)
    changed = replace(criterion, objective=objective, discriminator=judge, reference=reference)
    fakes, labels = latents(30).flip(0), torch.arange(64) % 3

    def measure(size: int) -> dict[str, float]:
        return held_out(changed, Network(0.5), latents(64), 0, size, fakes, labels, labels[:30])

    whole = measure(64)
    for size in (1, 3, 100):
        assert measure(size) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("count", "limit"), [(100, 1000), (7, 1000), (25, 10), (1, 1000)])
def test_held_out_timesteps_cover_the_process_evenly_and_in_random_order(criterion, count, limit):
    """The k-th smallest is in the middle of the k-th of ``count`` equal parts."""
    recorder, process = Recorder(), process_of(diffusion_params(num_train_timesteps=limit))
    held_out(replace(criterion, process=process), recorder, latents(count), 0, 8)
    timesteps = torch.cat(recorder.timesteps)
    expected = [((2 * k + 1) * limit) // (2 * count) for k in range(count)]
    assert timesteps.sort().values.tolist() == expected
    if count == 100:
        order = torch.corrcoef(torch.stack([timesteps.double(), torch.arange(100).double()]))
        assert abs(float(order[0, 1])) < 0.4  # standard error 0.1 for a random order


def test_the_held_out_noise_is_standard_normal_and_differs_between_rows(criterion):
    recorder = Recorder()
    linear = replace(criterion, process=process_of(diffusion_params(beta_schedule="linear")))
    held_out(linear, recorder, torch.zeros(100, 4, 8, 8), 0, 10)
    timesteps = torch.cat(recorder.timesteps)
    _, scale = linear.process.coefficients(timesteps, timesteps)
    noise = torch.cat(recorder.noisy) / scale
    # 25,600 draws: the mean has standard error 0.0063, the variance 0.0088; allow four
    assert abs(float(noise.mean())) < 0.025
    assert abs(float(noise.var()) - 1) < 0.035
    assert len(noise.flatten(1).unique(dim=0)) == 100


@pytest.mark.parametrize("training", [True, False])
def test_held_out_leaves_the_mode_weights_and_gradients_of_the_model_alone(
    criterion, denoiser, training
):
    denoiser.train(training)
    for index, parameter in enumerate(denoiser.parameters()):
        parameter.grad = torch.full_like(parameter, float(index))
    before = copy_weights(denoiser)
    modes = []
    denoiser.register_forward_hook(
        lambda module, _inputs, output: modes.append((module.training, output.requires_grad))
    )
    held_out(criterion, denoiser, latents(4), 0, 2)
    assert modes == [(False, False)] * 2
    assert all(module.training == training for module in denoiser.modules())
    assert equal(copy_weights(denoiser), before)
    for index, parameter in enumerate(denoiser.parameters()):
        assert parameter.requires_grad
        assert bool((parameter.grad == index).all())


def test_fakes_are_repeated_to_as_many_rows_with_noise_and_timesteps_of_their_own():
    batches = []

    def record(batch):
        batches.append(batch)
        return batch.noise_loss(), {}

    fakes = latents(3) + 10
    held_out(make_criterion(record), Recorder(), latents(7), 0, 4, fakes=fakes)
    assert torch.equal(torch.cat([b.fake.x0 for b in batches]), fakes[torch.arange(7) % 3])
    for name in ("eps", "timesteps"):
        ours, theirs = (
            torch.cat([getattr(b, name) for b in side])
            for side in (batches, [batch.fake for batch in batches])
        )
        assert not torch.equal(ours, theirs)


def test_the_loss_is_float32_if_the_network_runs_in_bf16(criterion, denoiser):
    half = replace(criterion, precision="bf16")
    inside = []
    denoiser.network.conv_out.register_forward_hook(
        lambda _m, _i, output: inside.append(output.dtype)
    )
    x0, timesteps = latents(4), torch.tensor([0, 100, 500, 999])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    loss, terms = half(denoiser, x0, eps, timesteps)
    assert inside == [torch.bfloat16]
    assert {value.dtype for value in [loss, *terms.values()]} == {torch.float32}
    exact, _ = criterion(denoiser, x0, eps, timesteps)
    assert loss.requires_grad
    # bf16 keeps 8 bits: each value is within 0.4 %, their squares' mean within a few of that
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)

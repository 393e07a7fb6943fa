"""The held-out measurement: the same problem at every call, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_unet import CONFIG
from torch import nn

from advloop.criterion import Criterion, held_out
from advloop.discriminator import Discriminator
from advloop.objectives.seed import seed_objective
from advloop.params.diffusion import DiffusionParams
from advloop.unet import Denoiser, build_unet


class Recorder(nn.Module):
    """A network that predicts zero, notes what it was shown, and works on any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.noisy: list[torch.Tensor] = []
        self.timesteps: list[torch.Tensor] = []

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.noisy.append(noisy)
        self.timesteps.append(timesteps)
        return torch.zeros_like(noisy)


@pytest.fixture
def criterion() -> Criterion:
    torch.manual_seed(0)
    return Criterion(
        objective=seed_objective,
        weight=0.1,
        discriminator=Discriminator(4, [8], dropout=0.2).requires_grad_(False).eval(),
        diffusion=DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction"),
        precision="fp32",
        where=torch.device("cpu"),
    )


@pytest.fixture
def denoiser() -> Denoiser:
    return build_unet(CONFIG, seed=0)


def latents(count: int, shape: tuple[int, ...] = (4, 8, 8)) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_the_held_out_loss_is_the_same_at_every_call(criterion, denoiser):
    first = held_out(criterion, denoiser, latents(20), 0, 8)
    torch.randn(7)  # what the global stream did in between does not matter
    assert held_out(criterion, denoiser, latents(20), 0, 8) == first
    assert held_out(criterion, denoiser, latents(20), 1, 8) != first


def test_the_held_out_loss_reports_the_loss_and_every_term(criterion, denoiser):
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


def test_the_held_out_loss_of_a_unet_does_not_depend_on_the_batch_size(criterion, denoiser):
    reference = held_out(criterion, denoiser, latents(20), 0, 20)
    assert held_out(criterion, denoiser, latents(20), 0, 7) == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize(("count", "limit"), [(100, 1000), (7, 1000), (25, 10), (1, 1000)])
def test_held_out_timesteps_cover_the_process_evenly(criterion, count, limit):
    """The k-th smallest stands in the middle of the k-th of ``count`` equal parts."""
    diffusion = DiffusionParams(limit, "squaredcos_cap_v2", "v_prediction")
    recorder = Recorder()
    held_out(replace(criterion, diffusion=diffusion), recorder, latents(count), 0, 8)
    found = torch.cat(recorder.timesteps).sort().values.tolist()
    assert found == [((2 * k + 1) * limit) // (2 * count) for k in range(count)]


def test_held_out_timesteps_are_not_in_the_order_of_the_rows(criterion):
    recorder = Recorder()
    held_out(criterion, recorder, latents(100), 0, 100)
    steps = recorder.timesteps[0].double()
    order = torch.corrcoef(torch.stack([steps, torch.arange(100.0).double()]))[0, 1]
    assert abs(float(order)) < 0.4  # standard error 0.1 for a random order; sorted rows give 1


def test_the_held_out_noise_is_standard_normal_and_differs_between_rows(criterion):
    recorder = Recorder()
    diffusion = DiffusionParams(1000, "linear", "v_prediction")
    held_out(replace(criterion, diffusion=diffusion), recorder, torch.zeros(100, 4, 8, 8), 0, 10)
    alphas_cumprod = replace(criterion, diffusion=diffusion).alphas_cumprod
    scale = (1 - alphas_cumprod[torch.cat(recorder.timesteps)]).sqrt().view(-1, 1, 1, 1)
    noise = torch.cat(recorder.noisy) / scale
    # 25,600 draws: the mean has standard error 0.0063, the variance 0.0088; allow four
    assert abs(float(noise.mean())) < 0.025
    assert abs(float(noise.var()) - 1) < 0.035
    assert len(noise.flatten(1).unique(dim=0)) == 100


@pytest.mark.parametrize("training", [True, False])
def test_held_out_leaves_the_mode_and_the_gradients_of_the_model_alone(
    criterion, denoiser, training
):
    denoiser.train(training)
    for index, parameter in enumerate(denoiser.parameters()):
        parameter.grad = torch.full_like(parameter, float(index))
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    modes = []
    denoiser.register_forward_hook(
        lambda module, _inputs, output: modes.append((module.training, output.requires_grad))
    )
    held_out(criterion, denoiser, latents(4), 0, 2)
    assert modes == [(False, False)] * 2
    assert all(module.training == training for module in denoiser.modules())
    for index, parameter in enumerate(denoiser.parameters()):
        assert parameter.requires_grad
        assert torch.equal(parameter.grad, torch.full_like(parameter, float(index)))
    assert all(torch.equal(before[k], v) for k, v in denoiser.state_dict().items())


def test_held_out_leaves_the_global_random_state_alone(criterion, denoiser):
    before = torch.get_rng_state()
    held_out(criterion, denoiser, latents(4), 0, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_float32_where_the_network_runs_in_bf16(criterion, denoiser):
    half = replace(criterion, precision="bf16")
    inside = []
    denoiser.unet.conv_out.register_forward_hook(lambda _m, _i, output: inside.append(output.dtype))
    x0, timesteps = latents(4), torch.tensor([0, 100, 500, 999])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    loss, terms = half(denoiser, x0, eps, timesteps)
    assert inside == [torch.bfloat16]
    assert {value.dtype for value in [loss, *terms.values()]} == {torch.float32}
    exact, _ = criterion(denoiser, x0, eps, timesteps)
    assert loss.requires_grad
    # bf16 keeps 8 bits: each value is within 0.4 %, their squares' mean within a few of that
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)

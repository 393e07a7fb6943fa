"""Samples with a gradient: those of the sampler, through all of its K steps or the last ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_diffusion import make_criterion
from tiny_unet import CONFIG
from torch import nn

from advloop.core.random import noise_for
from advloop.diffusion.sampling import sample
from advloop.diffusion.unrolled import sample_with_gradient
from advloop.diffusion.variance_preserving import VariancePreserving
from advloop.models.denoiser import build_denoiser

PROCESS = make_criterion().process
NOISE = noise_for(range(3), (4, 8, 8), 0, "unrolled")


class Counting(nn.Module):
    """A U-Net that counts its calls, and how many of them keep a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.calls, self.with_graph = build_denoiser(CONFIG, seed=0), 0, 0

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        output: torch.Tensor = self.unet(noisy, timesteps)
        self.with_graph += output.requires_grad
        return output


def gradients(model: nn.Module, samples: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.arange(samples.numel()).view_as(samples).cos()
    return list(torch.autograd.grad((samples * weights).sum(), list(model.parameters())))


@pytest.mark.parametrize("gradient_steps", [None, 1, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_samples_are_those_of_the_sampler_to_the_byte(gradient_steps, recompute):
    model = build_denoiser(CONFIG, seed=0)
    expected = sample(PROCESS, model, NOISE, 4)
    options = (4, gradient_steps, recompute)
    assert torch.equal(sample_with_gradient(PROCESS, model, NOISE, *options), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gradient_steps", [None, 2])
def test_gradient_with_recomputation_is_that_without_it_to_the_byte(
    prediction_type, gradient_steps
):
    model = build_denoiser(CONFIG, seed=0)
    alpha_bars = PROCESS.alpha_bars.clamp(min=0.01)  # epsilon divides by its root
    process = VariancePreserving(alpha_bars, prediction_type)
    kept, recomputed = (
        gradients(model, sample_with_gradient(process, model, NOISE, 4, *options))
        for options in ((gradient_steps, False), (gradient_steps, True))
    )
    assert all(bool(one.any()) for one in kept)
    assert all(torch.equal(one, other) for one, other in zip(kept, recomputed, strict=True))


def test_gradient_goes_through_every_step():
    """Against finite differences, for a model of one weight: output = w * noisy."""
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    noise, process = NOISE.double(), replace(PROCESS, alpha_bars=PROCESS.alpha_bars.double())

    def total(weight: torch.Tensor, *options: int) -> torch.Tensor:
        def model(noisy: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return weight * noisy

        return sample_with_gradient(process, model, noise, 5, *options).square().sum()

    (found,) = torch.autograd.grad(total(w), w)
    with torch.no_grad():
        difference = (total(w + 1e-6) - total(w - 1e-6)) / 2e-6
    torch.testing.assert_close(found, difference, rtol=1e-6, atol=0)
    (last,) = torch.autograd.grad(total(w, 1), w)
    assert abs(float(last - found)) > 0.01 * abs(float(found))


@pytest.mark.parametrize(("gradient_steps", "expected"), [(None, 4), (4, 4), (2, 2), (1, 1)])
def test_only_the_last_steps_keep_a_graph(gradient_steps, expected):
    model = Counting()
    samples = sample_with_gradient(PROCESS, model, NOISE, 4, gradient_steps, False)
    assert (model.calls, model.with_graph) == (4, expected)
    gradients(model, samples)
    assert model.calls == 4


def test_recomputation_calls_each_step_again_and_begins_where_memory_asks_for_it(monkeypatch):
    for kept, calls in ((5 * NOISE.numel(), 4), (NOISE.numel(), 8)):
        monkeypatch.setattr("advloop.diffusion.unrolled.KEPT", kept)
        model = Counting()
        gradients(model, sample_with_gradient(PROCESS, model, NOISE, 4))
        assert model.calls == calls

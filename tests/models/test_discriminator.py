"""The discriminator: its logits, its conditions, its penalty and its checkpoints."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from refusal import refusal

from advloop.models.discriminator import (
    Discriminator,
    build_discriminator,
    discriminator_bce,
    load_discriminator,
    r1_penalty,
    save_discriminator,
    timestep_embedding,
)
from advloop.params.training import DiscriminatorParams

TIMES = torch.tensor([10, 200, 400])
LATENTS = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def build(seed: int = 0, iteration: int = 0, noise_conditioned: bool = False) -> Discriminator:
    params = DiscriminatorParams(noise_conditioned=noise_conditioned, channels=[8, 12], dropout=0.5)
    return build_discriminator(params, (4, 8, 8), seed, iteration)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize(("channels", "size"), [([8], 8), ([8, 12], 8), ([8, 8, 8], 16), ([8], 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_one_logit_for_every_latent(channels, size, batch):
    model = Discriminator(4, channels, dropout=0.1)
    latents = torch.randn(batch, 4, size, size)
    assert model(latents).shape == (batch,)
    assert model.features(latents).shape[2] == size // 2 ** len(channels)


@torch.no_grad()
def test_a_logit_depends_on_its_own_latent_alone():
    model = build().eval()
    together, apart = model(LATENTS), torch.cat([model(latent[None]) for latent in LATENTS])
    torch.testing.assert_close(together, apart)
    assert len(set(together.tolist())) == len(LATENTS)


@torch.no_grad()
def test_dropout_acts_in_training_and_not_in_evaluation():
    model = build()
    assert len({float(model(LATENTS[:1])) for _ in range(10)}) > 1
    model.eval()
    assert len({float(model(LATENTS[:1])) for _ in range(10)}) == 1


def test_seed_and_iteration_decide_the_first_weights():
    assert same_weights(build(), build())
    assert not same_weights(build(), build(iteration=1))
    assert not same_weights(build(), build(seed=1))


def test_the_cross_entropy_is_that_of_each_sample():
    logits, real = torch.tensor([0.0, math.log(3.0), math.log(3.0)]), torch.tensor([1.0, 1.0, 0.0])
    expected = torch.tensor([math.log(2.0), math.log(4 / 3), math.log(4.0)])
    torch.testing.assert_close(discriminator_bce(logits, real), expected)


# --- Noise conditioning ---


def test_a_discriminator_without_noise_conditioning_has_no_weights_for_timesteps():
    plain, conditioned = build(), build(noise_conditioned=True)
    assert (plain.noise_conditioned, conditioned.noise_conditioned) == (False, True)
    assert set(plain.config) == {"in_channels", "channels", "dropout"}
    shared = conditioned.state_dict()
    extra = shared.keys() - plain.state_dict().keys()
    assert {name.split(".")[0] for name in extra} == {"time_bias"}
    assert all(torch.equal(shared[name], value) for name, value in plain.state_dict().items())
    with pytest.raises(ValueError, match="not noise_conditioned"):
        plain(LATENTS, TIMES)


def test_a_discriminator_without_noise_conditioning_does_not_wait_for_diffusers():
    code = (
        "import sys, torch; from advloop.models.discriminator import Discriminator;"
        "Discriminator(4, [8], 0.0)(torch.zeros(1, 4, 8, 8)); assert 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@torch.no_grad()
def test_the_logit_of_each_latent_depends_on_its_own_timestep_and_none_counts_as_clean():
    model = build(noise_conditioned=True).eval()
    first, second = model(LATENTS, TIMES), model(LATENTS, torch.tensor([10, 300, 400]))
    assert (first == second).tolist() == [True, False, True]
    zeros = torch.zeros(3, dtype=torch.long)
    assert torch.equal(model(LATENTS), model(LATENTS, zeros))
    assert not torch.equal(model(LATENTS), model(LATENTS, zeros + 500))


def test_the_bias_of_the_timesteps_is_trained():
    model = build(noise_conditioned=True)
    model(LATENTS, TIMES).sum().backward()
    for parameter in model.time_bias.parameters():
        assert float(parameter.grad.abs().sum()) > 0


def test_the_timestep_embedding_holds_sinusoids_of_wavelengths_from_2_pi_to_20_000_pi():
    timesteps = torch.arange(1000)
    embedding = timestep_embedding(timesteps)
    assert (embedding.shape, embedding.dtype) == ((1000, 64), torch.float32)
    angles = timesteps.double()[:, None] * 10_000 ** -(torch.arange(32).double() / 31)
    expected = torch.cat([angles.sin(), angles.cos()], 1)
    # float32 rounds an angle of up to 999 radians by up to 6e-5
    torch.testing.assert_close(embedding.double(), expected, rtol=0, atol=1e-4)


# --- R1 ---


class Linear(torch.nn.Module):
    """D(x) = g . x, whose gradient is g everywhere."""

    def __init__(self) -> None:
        super().__init__()
        gradient = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
        self.gradient = torch.nn.Parameter(0.1 * gradient)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents * self.gradient).sum((1, 2, 3))


@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0])
@torch.no_grad()
def test_the_penalty_of_a_linear_discriminator_is_its_squared_gradient_in_expectation(sigma):
    model, count = Linear(), 20_000
    eps = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    penalty = r1_penalty(model, torch.zeros(count, 4, 8, 8), eps, sigma)
    assert penalty.shape == (count,)
    assert float(penalty.min()) >= 0
    # (g . eps)^2 is |g|^2 times chi-squared: relative standard error sqrt(2 / 20,000) = 0.01
    assert float(penalty.mean()) == pytest.approx(float(model.gradient.square().sum()), rel=0.04)


def test_the_penalty_has_a_gradient_in_the_weights():
    model = Linear()
    eps = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    r1_penalty(model, LATENTS, eps, 0.1).mean().backward()
    # d/dg (g . eps)^2 = 2 (g . eps) eps
    expected = (2 * model(eps).view(-1, 1, 1, 1) * eps).mean(0)
    torch.testing.assert_close(model.gradient.grad, expected.detach(), rtol=1e-3, atol=1e-4)


def test_both_ends_of_the_difference_get_the_same_timesteps():
    model = build(noise_conditioned=True).eval()
    penalty = r1_penalty(model, LATENTS, torch.zeros(3, 4, 8, 8), 0.1, TIMES)
    assert torch.equal(penalty, torch.zeros(3))


# --- Checkpoints ---


@pytest.mark.parametrize("noise_conditioned", [False, True])
def test_a_loaded_discriminator_is_the_saved_one_frozen_and_in_evaluation_mode(
    tmp_path, noise_conditioned
):
    model = build(noise_conditioned=noise_conditioned)
    for name in ("a.pt", "another_name.pt"):
        save_discriminator(tmp_path / name, model.config, model.state_dict())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another_name.pt").read_bytes()
    loaded = load_discriminator(tmp_path / "a.pt", 4)
    assert same_weights(loaded, model)
    assert loaded.config == model.config
    assert loaded.noise_conditioned == noise_conditioned
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())


def test_a_discriminator_for_other_channels_or_classes_is_refused_with_both_counts(tmp_path):
    model, path = build(), tmp_path / "a.pt"
    save_discriminator(path, model.config, model.state_dict())
    message = refusal(load_discriminator, path, 16)
    assert message.startswith(f"{path}: takes 4 latent channels, but the model has 16")
    message = refusal(load_discriminator, path, 4, num_classes=3)
    assert message.startswith(f"{path}: knows 0 classes, but the images have 3")


@pytest.mark.parametrize(
    "content",
    [
        {"config": build().config | {"channels": [8, 16]}, "discriminator": build().state_dict()},
        {"config": build().config | {"channels": [8]}, "discriminator": build().state_dict()},
        {"config": {"sample_size": 8}, "ema": {}},
        {"config": None, "discriminator": None},
        {},
        ["config"],
    ],
    ids=["wider", "fewer levels", "a checkpoint of a U-Net", "nulls", "empty", "list"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content: Any):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    message = refusal(load_discriminator, path, 4)
    assert message.startswith(f"{path}: not a discriminator that fits")

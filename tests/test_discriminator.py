"""The discriminator network and its checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advloop.core.errors import UserError
from advloop.discriminator import (
    Discriminator,
    build_discriminator,
    discriminator_bce,
    load_discriminator,
    r1_penalty,
    save_discriminator,
    timestep_features,
)
from advloop.params.discriminator import DiscriminatorParams

PARAMS = DiscriminatorParams(noise_conditioned=False, channels=[8, 12], dropout=0.5)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def refusal(path: Path, latent_channels: int = 4) -> str:
    """The message of the UserError: one line that names ``path``."""
    with pytest.raises(UserError) as caught:
        load_discriminator(path, latent_channels)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


@pytest.fixture
def saved(tmp_path) -> tuple[Path, Discriminator]:
    model = build_discriminator(PARAMS, 4, seed=0, iteration=0)
    path = tmp_path / "discriminator.pt"
    save_discriminator(path, model.config, model.state_dict())
    return path, model


@pytest.mark.parametrize(("channels", "size"), [([8], 8), ([8, 12], 8), ([8, 8, 8], 16), ([8], 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_one_logit_for_every_latent(channels, size, batch):
    model = Discriminator(4, channels, dropout=0.1)
    latents = torch.randn(batch, 4, size, size)
    logits = model(latents)
    assert logits.shape == (batch,)
    if size % 2 == 0:
        assert model.features(latents).shape[2] == size // 2 ** len(channels)


def test_a_logit_depends_on_its_own_latent_alone():
    model = Discriminator(4, [8, 12], dropout=0.5).eval()
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, apart = model(latents), torch.cat([model(latents[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, apart)
    assert len(set(together.tolist())) == 6


def test_dropout_acts_in_training_and_not_in_evaluation():
    model = Discriminator(4, [8], dropout=0.5)
    latents = torch.ones(1, 4, 8, 8)
    assert len({float(model(latents).detach()) for _ in range(10)}) > 1
    model.eval()
    assert len({float(model(latents).detach()) for _ in range(10)}) == 1


def test_every_iteration_starts_from_other_weights_and_the_same_one_from_the_same():
    first = build_discriminator(PARAMS, 4, seed=0, iteration=0)
    assert same_weights(first, build_discriminator(PARAMS, 4, seed=0, iteration=0))
    assert not same_weights(first, build_discriminator(PARAMS, 4, seed=0, iteration=1))
    assert not same_weights(first, build_discriminator(PARAMS, 4, seed=1, iteration=0))


def test_the_cross_entropy_is_that_of_each_sample():
    logits, real = torch.tensor([0.0, math.log(3.0), math.log(3.0)]), torch.tensor([1.0, 1.0, 0.0])
    losses = discriminator_bce(logits, real)
    expected = torch.tensor([math.log(2.0), math.log(4 / 3), math.log(4.0)])
    torch.testing.assert_close(losses, expected)


def test_a_loaded_discriminator_is_the_saved_one_frozen_and_in_evaluation_mode(saved):
    path, model = saved
    loaded = load_discriminator(path, 4)
    assert same_weights(loaded, model)
    assert loaded.config == model.config
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())


def test_equal_discriminators_are_equal_bytes_whatever_the_file_is_called(saved, tmp_path):
    path, model = saved
    save_discriminator(tmp_path / "another_name.pt", model.config, model.state_dict())
    assert (tmp_path / "another_name.pt").read_bytes() == path.read_bytes()


def test_a_discriminator_for_other_channels_is_refused_with_both_counts(saved):
    message = refusal(saved[0], latent_channels=16)
    assert "4 latent channels" in message
    assert "16" in message


def test_weights_of_another_architecture_are_refused(saved, tmp_path):
    _, model = saved
    path = tmp_path / "other.pt"
    save_discriminator(path, model.config | {"channels": [8, 16]}, model.state_dict())
    assert "architecture" in refusal(path)
    save_discriminator(path, model.config | {"channels": [8]}, model.state_dict())
    assert "architecture" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"config": {"sample_size": 8}, "ema": {}},
        {"config": None, "discriminator": None},
        ["config"],
        torch.zeros(2, 4, 8, 8),
    ],
    ids=["empty", "checkpoint of a unet", "nulls", "list", "tensor"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content):
    path = tmp_path / "discriminator.pt"
    torch.save(content, path)
    refusal(path)


def test_a_missing_file_is_refused(tmp_path):
    assert "dvc repro" in refusal(tmp_path / "absent.pt")


# --- noise conditioning ---


def latents_of(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_discriminator_that_is_not_told_timesteps_has_no_weights_for_them():
    model = build_discriminator(PARAMS, 4, seed=0, iteration=0)
    told = build_discriminator(replace(PARAMS, noise_conditioned=True), 4, seed=0, iteration=0)
    assert not model.noise_conditioned
    assert told.noise_conditioned
    assert set(model.config) == {"in_channels", "channels", "dropout"}
    extra = told.state_dict().keys() - model.state_dict().keys()
    assert extra
    assert all(name.startswith("time_bias.") for name in extra)
    shared = told.state_dict()
    assert all(torch.equal(shared[name], value) for name, value in model.state_dict().items())


def test_timesteps_for_a_discriminator_that_is_not_told_them_are_refused():
    with pytest.raises(ValueError, match="not noise_conditioned"):
        Discriminator(4, [8], dropout=0.0)(latents_of(), torch.zeros(3, dtype=torch.long))


def test_the_logit_of_each_latent_depends_on_its_own_timestep():
    torch.manual_seed(0)
    model = Discriminator(4, [8], dropout=0.0, noise_conditioned=True)
    with torch.no_grad():
        first = model(latents_of(), torch.tensor([10, 200, 400]))
        second = model(latents_of(), torch.tensor([10, 300, 400]))
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[2] == second[2]


def test_latents_without_timesteps_count_as_clean():
    torch.manual_seed(0)
    model = Discriminator(4, [8], dropout=0.0, noise_conditioned=True)
    zeros = torch.zeros(3, dtype=torch.long)
    assert torch.equal(model(latents_of()), model(latents_of(), zeros))
    assert not torch.equal(model(latents_of()), model(latents_of(), zeros + 500))


def test_the_embedding_of_timesteps_is_trained():
    model = Discriminator(4, [8], dropout=0.0, noise_conditioned=True)
    model(latents_of(), torch.tensor([10, 200, 400])).sum().backward()
    assert model.time_bias is not None
    for parameter in model.time_bias.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0


def test_timestep_features_are_bounded_and_tell_every_timestep_from_every_other():
    features = timestep_features(torch.arange(1000))
    assert features.shape == (1000, 64)
    assert float(features.abs().max()) <= 1
    distances = torch.cdist(features.double(), features.double()).fill_diagonal_(math.inf)
    # the fastest sine alone moves a neighbour by 2 sin(1/2) = 0.96 on the unit circle
    assert float(distances.min()) > 0.9
    assert timestep_features(torch.tensor([0])).tolist() == [[0.0] * 32 + [1.0] * 32]
    assert float(timestep_features(torch.tensor([7]))[0, 0]) == pytest.approx(math.sin(7))
    slowest = float(timestep_features(torch.tensor([5000]))[0, 31])
    assert slowest == pytest.approx(math.sin(0.5), abs=1e-4)


def test_a_noise_conditioned_discriminator_is_loaded_as_it_was_saved(tmp_path):
    params = replace(PARAMS, noise_conditioned=True)
    model = build_discriminator(params, 4, seed=0, iteration=0).eval()
    save_discriminator(tmp_path / "told.pt", model.config, model.state_dict())
    loaded = load_discriminator(tmp_path / "told.pt", 4)
    assert loaded.noise_conditioned
    times = torch.tensor([10, 200, 400])
    assert torch.equal(loaded(latents_of(), times), model(latents_of(), times))


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
def test_the_penalty_of_a_linear_discriminator_is_its_squared_gradient_in_expectation(sigma):
    model, count = Linear(), 20_000
    eps = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    penalty = r1_penalty(model, torch.zeros(count, 4, 8, 8), eps, sigma)
    assert penalty.shape == (count,)
    assert float(penalty.detach().min()) >= 0
    expected = float(model.gradient.detach().square().sum())
    # (g . eps)^2 is |g|^2 times chi-squared: relative standard error sqrt(2 / 20,000) = 0.01
    assert float(penalty.detach().mean()) == pytest.approx(expected, rel=0.04)


def test_the_penalty_of_a_curved_discriminator_is_near_its_squared_gradient():
    torch.manual_seed(0)
    model = Discriminator(4, [8, 12], dropout=0.5).eval()
    latents = latents_of(2).requires_grad_()
    (gradient,) = torch.autograd.grad(model(latents).sum(), latents)
    exact = gradient.square().sum((1, 2, 3))
    stream = torch.Generator().manual_seed(3)
    eps = torch.randn(4000, 2, 4, 8, 8, generator=stream)
    with torch.no_grad():
        means = torch.stack(
            [
                r1_penalty(model, latents[k].expand(4000, 4, 8, 8), eps[:, k], 0.01).mean()
                for k in range(2)
            ]
        )
    # relative standard error sqrt(2 / 4000) = 0.022, and O(sigma^2); allow four
    torch.testing.assert_close(means, exact, rtol=0.09, atol=0)


def test_the_penalty_has_a_gradient_in_the_weights():
    model = Linear()
    eps = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    r1_penalty(model, latents_of(5), eps, 0.1).mean().backward()
    # d/dg (g . eps)^2 = 2 (g . eps) eps
    expected = (2 * (eps * model.gradient).sum((1, 2, 3)).view(-1, 1, 1, 1) * eps).mean(0)
    torch.testing.assert_close(model.gradient.grad, expected.detach(), rtol=1e-3, atol=1e-4)


def test_both_ends_of_the_difference_are_told_the_same_timesteps():
    torch.manual_seed(0)
    model = Discriminator(4, [8], dropout=0.0, noise_conditioned=True)
    eps = torch.zeros(3, 4, 8, 8)
    penalty = r1_penalty(model, latents_of(), eps, 0.1, torch.tensor([10, 200, 400]))
    assert torch.equal(penalty, torch.zeros(3))

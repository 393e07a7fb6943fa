"""The discriminator network and its checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from advloop.discriminator import (
    Discriminator,
    build_discriminator,
    discriminator_bce,
    load_discriminator,
    save_discriminator,
)
from advloop.errors import UserError
from advloop.params.discriminator import DiscriminatorParams

PARAMS = DiscriminatorParams(channels=[8, 12], dropout=0.5)


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


def test_a_truncated_file_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:1000])
    refusal(path)

"""The moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from tiny_unet import CONFIG

from advloop.averaging import Average
from advloop.unet import Denoiser, build_unet


def step(network: Denoiser, seed: int) -> None:
    """Other weights, in place, as an optimizer would write them."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=stream))


def weights(network: Denoiser) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in network.parameters()]


def test_the_average_is_the_first_weights_and_then_the_share_that_the_decay_leaves() -> None:
    network = build_unet(CONFIG, seed=0)
    average = Average(network, decay=0.75)
    step(network, 1)
    average.update()
    expected = weights(network)
    assert all(map(torch.equal, weights(average.model), expected))
    for seed in (2, 3):
        step(network, seed)
        average.update()
        new = weights(network)
        expected = [0.75 * old + 0.25 * now for old, now in zip(expected, new, strict=True)]
    for found, wanted in zip(weights(average.model), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_an_average_that_was_stored_goes_on_to_the_same_bytes() -> None:
    network = build_unet(CONFIG, seed=0)
    average = Average(network, decay=0.9)
    average.update()
    other = build_unet(CONFIG, seed=7)
    resumed = Average(other, decay=0.9)
    other.load_state_dict(network.state_dict())
    resumed.load_state_dict(copy.deepcopy(average.state_dict()))
    for source, into in ((network, average), (other, resumed)):
        step(source, 1)
        into.update()
    assert all(map(torch.equal, weights(resumed.model), weights(average.model)))
    assert not torch.equal(weights(resumed.model)[0], weights(other)[0])

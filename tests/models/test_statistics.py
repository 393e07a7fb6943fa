"""Statistics of latents: their number, their gradient, and the discriminator that sees them."""

from __future__ import annotations

import pytest
import torch

from advloop.models.discriminator import Discriminator, load_discriminator, save_discriminator
from advloop.models.statistics import OUTLIER, StatisticsHead, statistics_count, statistics_of

LATENTS = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def levels(channels: int, count: int) -> int:
    """Four quadrants; 1 + 7 + 2 maps and two sets of products at each level."""
    return 4 * channels + count * (10 * channels + channels * (channels + 1))


@pytest.mark.parametrize(("size", "count"), [(2, 1), (4, 1), (8, 1), (16, 2), (32, 3)])
def test_number_of_statistics_is_known_from_the_shape(size, count):
    latents = torch.randn(2, 3, size, size)
    assert statistics_of(latents).shape == (2, statistics_count(3, size)) == (2, levels(3, count))


def test_every_cell_of_a_latent_has_a_gradient():
    latents = LATENTS.clone().requires_grad_()
    found = statistics_of(latents)
    (gradient,) = torch.autograd.grad(found.square().sum(), latents)
    assert bool((gradient != 0).all())


def test_statistics_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        found = statistics_of(LATENTS)
    assert torch.equal(found, statistics_of(LATENTS))


def test_head_standardises_by_what_it_measured_and_leaves_outliers_a_gradient():
    head, found = StatisticsHead(4, 8), statistics_of(LATENTS)
    head.measure(found)
    torch.testing.assert_close(head.shift, found.mean(0))
    seen: list[torch.Tensor] = []
    head.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    far = (head.shift + 8 * head.scale)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(head(far).sum(), far)
    assert float(seen[0].detach().abs().max()) < OUTLIER
    assert bool((gradient != 0).any())


def test_discriminator_adds_the_logit_of_the_statistics_and_comes_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    model = Discriminator(4, [8], 0.0, statistics_size=8).eval()
    model.statistics.measure(statistics_of(LATENTS))
    plain = Discriminator(4, [8], 0.0).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("statistics.")}
    )
    with torch.no_grad():
        expected = plain(LATENTS) + model.statistics(statistics_of(LATENTS))
        torch.testing.assert_close(model(LATENTS), expected)
        save_discriminator(tmp_path / "d.pt", model.config, model.state_dict())
        assert torch.equal(load_discriminator(tmp_path / "d.pt", 4)(LATENTS), model(LATENTS))

"""The linear start of the patch autoencoder, and what its residual parts add."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.random import seeded
from advloop.models.patch_autoencoder import PatchAutoencoder

FACTOR = 4


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with seeded(0, "test"):
        yield


def pixels_of_rank(rank: int) -> torch.Tensor:
    """(8, 3, 16, 16) whose patches lie in an affine space of dimension ``rank``."""
    cells, values = 16 // FACTOR, 3 * FACTOR**2
    coordinates = 0.1 * torch.randn(8, rank, cells, cells)
    basis, mean = torch.randn(values, rank), 0.1 * torch.randn(values, 1, 1)
    patches = torch.einsum("pr,brhw->bphw", basis, coordinates) + mean
    return F.pixel_shuffle(patches, FACTOR)


def started_from(pixels: torch.Tensor) -> PatchAutoencoder:
    model = PatchAutoencoder(4, FACTOR, 8, 1, 1)
    model.start_from_pca(F.pixel_unshuffle(pixels, FACTOR).movedim(1, -1).flatten(0, 2))
    return model


@pytest.mark.parametrize("rank", [1, 3, 4, 6])
@torch.no_grad()
def test_the_pca_start_reconstructs_patches_of_a_rank_up_to_its_channels_and_no_more(rank):
    pixels = pixels_of_rank(rank)
    model = started_from(pixels)
    error = model.decode(model.encode(pixels)).sample - pixels
    assert error.abs().max() < 1e-4 if rank <= 4 else error.square().mean() > 1e-4


def test_the_pca_start_orders_channels_by_their_variance_around_zero():
    pixels = pixels_of_rank(4)
    latents = started_from(pixels).encode(pixels)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    variances = latents.var((0, 2, 3)).tolist()
    assert variances == sorted(variances, reverse=True)


@pytest.mark.parametrize("direction", ["encode", "decode"])
@torch.no_grad()
def test_the_network_is_affine_until_its_residual_parts_have_learnt(direction):
    model = PatchAutoencoder(4, FACTOR, 8, 2, 2)
    function = model.encode if direction == "encode" else lambda x: model.decode(x).sample
    one, other = torch.randn(2, 1, *((3, 16, 16) if direction == "encode" else (4, 4, 4)))

    def bend() -> float:
        """Largest distance of f((x + y) / 2) from (f(x) + f(y)) / 2."""
        middle = (function(one) + function(other)) / 2
        return float((function((one + other) / 2) - middle).abs().max())

    assert bend() < 1e-5
    nn.init.normal_(getattr(model, f"{direction}r")[-1].weight)
    assert bend() > 1e-2


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 5])
def test_latents_are_smaller_by_the_factor_and_decode_to_the_image(factor, channels):
    model = PatchAutoencoder(channels, factor, 8, 1, 0)
    latents = model.encode(torch.zeros(2, 3, 16, 16))
    assert latents.shape == (2, channels, 16 // factor, 16 // factor)
    assert model.decode(latents).sample.shape == (2, 3, 16, 16)

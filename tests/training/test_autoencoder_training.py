"""Training of the autoencoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from refusal import refusal
from tiny_autoencoders import autoencoder_params
from torch import nn
from torch.nn import functional as F

from advloop.models.codec import Codec, to_pixels
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.training.autoencoder import psnr, train_autoencoder

CPU = torch.device("cpu")
ROWS = np.arange(16)


def rectangles() -> np.ndarray:
    """16 images (16, 16) of one filled rectangle each: structure, but no patch subspace."""
    rng = np.random.default_rng(0)
    images = np.full((16, 16, 16, 3), 255, dtype=np.uint8)
    for image in images:
        top, left = rng.integers(0, 10, 2)
        bottom, right = top + rng.integers(2, 7), left + rng.integers(2, 7)
        image[top:bottom, left:right] = rng.integers(0, 200, 3)
    return images


IMAGES = rectangles()


class Shift(nn.Module):
    """Encodes pixels as they are and decodes them ``levels`` of 255 brighter."""

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents + self.levels / 127.5


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_psnr_agrees_with_a_hand_computation(batch):
    images = np.full((5, 4, 4, 3), 100, dtype=np.uint8)
    images[4] = 252  # clipped to 255: an error of 3 in place of 10
    value = psnr(Codec(Shift(10.0)), images, np.array([0, 2, 4]), batch)
    assert value == pytest.approx(10 * math.log10(255**2 / ((100 + 100 + 9) / 3)))


def test_psnr_of_a_perfect_codec_is_large_and_finite():
    assert 100 < psnr(Codec(Shift(0.0)), IMAGES, np.arange(2), 2) < math.inf


def train(
    images=IMAGES, rows=ROWS, seed=0, augmentation="none", on_epoch=lambda *_: None, **params
):
    return train_autoencoder(
        autoencoder_params(**params), augmentation, images, rows, seed, CPU, list, on_epoch
    )


def test_training_lowers_the_loss_and_beats_the_pca_it_starts_from():
    pca = PatchAutoencoder(4, 4, 8, 1, 1)
    patches = F.pixel_unshuffle(to_pixels(IMAGES, CPU), 4).movedim(1, -1).flatten(0, 2)
    pca.start_from_pca(patches)
    epochs = []
    model = train(on_epoch=lambda *epoch: epochs.append(epoch), epochs=40, width=16)
    assert [number for number, _ in epochs] == list(range(1, 41))
    assert epochs[-1][1] < 0.8 * epochs[0][1]
    assert psnr(Codec(model), IMAGES, ROWS, 16) > psnr(Codec(pca), IMAGES, ROWS, 16) + 1


@pytest.mark.parametrize("augmentation", ["none", "dihedral"])
def test_training_twice_gives_the_same_weights_and_another_seed_does_not(augmentation):
    weights = []
    for seed in (0, 0, 1):
        model = train(seed=seed, augmentation=augmentation, epochs=2)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.rand(3)  # the global stream must not matter
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_that_diverges_is_stopped_with_the_parameter_to_change():
    message = refusal(train, learning_rate=1e30, epochs=5)
    assert "autoencoder.learning_rate=1e+30" in message
    assert "epoch" in message


def test_training_reads_only_the_rows_that_it_is_given():
    changed = IMAGES.copy()
    changed[8:] = 0
    models = [train(images, rows=np.arange(8)) for images in (IMAGES, changed)]
    assert torch.equal(*(model.expand.weight for model in models))

"""Training of the autoencoder."""

from __future__ import annotations

import copy
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
from advloop.models.patch_discriminator import SMALLEST, PatchDiscriminator, hinge_loss
from advloop.training.autoencoder import psnr, reconstruction_loss, train_autoencoder

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


def test_reconstruction_loss_agrees_with_a_hand_computation():
    output = torch.zeros(1, 1, 2, 2)
    output[0, 0, 0, 0] = 0.5  # one pixel of four is off, and one of two differences each way
    params = autoencoder_params(l1_weight=0.4, edge_weight=0.6)
    expected = 0.25 / 4 + 0.4 * 0.5 / 4 + 0.6 * 0.5 / 2
    assert float(reconstruction_loss(output, torch.zeros(1, 1, 2, 2), params)) == pytest.approx(
        expected
    )


def test_hinge_loss_stops_at_a_margin_of_one():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert float(hinge_loss(real, fake)) == pytest.approx(1 / 2 + 1.5 / 2)


def test_smallest_image_has_a_logit_and_no_smaller_one():
    network = PatchDiscriminator(4)
    assert network(torch.zeros(2, 3, SMALLEST, SMALLEST)).shape == (2, 1, 2, 2)
    message = refusal(train, IMAGES[:, :8, :8], adversarial_weight=0.1)
    assert message.startswith("data.image_size=8: ")
    assert message.endswith("set autoencoder.adversarial_weight=0")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_discriminator_counts_after_its_start_and_never_with_a_weight_of_zero():
    plain = weights(train(epochs=2))
    late, early = (
        weights(train(epochs=2, adversarial_weight=0.1, adversarial_start=start))
        for start in (0.99, 0.0)
    )
    assert not torch.equal(late, plain)  # in the last epoch
    assert not torch.equal(early, late)
    assert torch.equal(weights(train(epochs=2, adversarial_start=0.5)), plain)


class Interrupted(Exception):
    pass


class Memory:
    """Snapshots in memory, and an interruption after the first."""

    def __init__(self, content=None, stop=False):
        self.content, self.stop = content, stop

    def load(self):
        return self.content

    def offer(self, make):
        self.content = copy.deepcopy(make())
        if self.stop:
            raise Interrupted


def test_training_with_a_discriminator_goes_on_to_the_same_bytes():
    def run(resume=None):
        params = autoencoder_params(epochs=3, adversarial_weight=0.1)
        return train_autoencoder(
            params, "none", IMAGES, ROWS, 0, CPU, list, lambda *_: None, resume
        )

    memory = Memory(stop=True)
    with pytest.raises(Interrupted):
        run(memory)
    assert torch.equal(weights(run(Memory(memory.content))), weights(run()))

"""From images to scaled latents in a file: one scale, rows and variants in order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from refusal import refusal
from tiny_autoencoders import KINDS, tiny_autoencoder
from torch import nn

from advloop.core.files import load_torch
from advloop.core.random import seeded
from advloop.data.augmentation import augment
from advloop.models.codec import Codec, encode_rows, latent_scale, to_images, to_pixels
from advloop.models.patch_autoencoder import PatchAutoencoder


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)


@pytest.fixture
def codec():
    with seeded(0, "test"):
        return Codec(PatchAutoencoder(4, 4, 8, 1, 1), 1.5)


def write(path, codec, images, rows, batch=3, augmentation="none"):
    shape = encode_rows(codec, images, np.array(rows), batch, path, lambda jobs: jobs, augmentation)
    latents = load_torch(path)
    assert latents.shape == shape
    return latents


# --- Scale ---


def test_scaled_latents_have_mean_square_one(codec, images):
    codec.scale = latent_scale(Codec(codec.model), images, np.arange(7), 3)
    assert float(codec.encode(images).square().mean()) == pytest.approx(1, rel=1e-5)


def test_scale_is_one_number_so_that_channels_keep_their_ratios(codec, images):
    with torch.no_grad():
        codec.model.project.weight[0] *= 20
    codec.scale = 1.0
    before = codec.encode(images).var((0, 2, 3))
    codec.scale = latent_scale(codec, images, np.arange(7), 7)
    assert isinstance(codec.scale, float)
    after = codec.encode(images).var((0, 2, 3))
    torch.testing.assert_close(after / after[1], before / before[1])
    assert after[0] > 50 * after[1]


def test_scale_does_not_depend_on_the_batch_and_sees_only_its_rows(codec, images):
    scales = [latent_scale(codec, images, np.arange(4), batch) for batch in (1, 3, 100)]
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-6)
    images[4:] = 0
    assert latent_scale(codec, images, np.arange(4), 4) == scales[2]


def test_autoencoder_that_encodes_everything_to_zero_is_refused(images):
    model = PatchAutoencoder(4, 4, 8, 0, 0)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    message = refusal(latent_scale, Codec(model), images, np.arange(7), 3)
    assert "encodes every image to zero" in message


# --- Rows ---


def test_rows_are_encoded_in_the_order_in_which_they_are_named(tmp_path, codec, images):
    latents = write(tmp_path / "a.pt", codec, images, [5, 0, 3, 3])
    torch.testing.assert_close(latents, codec.encode(images[[5, 0, 3, 3]]))
    assert latents.dtype == torch.float32


def test_variants_follow_each_other_as_whole_sets_of_rows(tmp_path, codec, images):
    rows = [6, 1, 2, 4]
    latents = write(tmp_path / "a.pt", codec, images, rows, augmentation="dihedral")
    pixels = to_pixels(images[rows], torch.device("cpu"))
    expected = [codec.encode(to_images(augment(pixels, variant))) for variant in range(8)]
    torch.testing.assert_close(latents, torch.cat(expected))


@pytest.mark.parametrize("augmentation", ["none", "hflip"])
def test_batch_size_changes_no_latent(tmp_path, codec, images, augmentation):
    first, *others = (
        write(tmp_path / f"{batch}.pt", codec, images, range(7), batch, augmentation)
        for batch in (1, 3, 7, 50)
    )
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-5, atol=1e-5)


def test_encoding_twice_gives_the_same_bytes(tmp_path, codec, images):
    for name in ("a", "other_name"):
        write(tmp_path / name, codec, images, [0, 1, 2, 3])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "other_name").read_bytes()


def test_progress_sees_every_batch_of_every_variant(tmp_path, codec, images):
    seen = []

    def progress(jobs):
        for job in jobs:
            seen.append(job)
            yield job

    encode_rows(codec, images, np.arange(7), 3, tmp_path / "a.pt", progress, "hflip")
    assert seen == [range(0, 3), range(3, 6), range(6, 7)] * 2


CPU = torch.device("cpu")
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def test_pixels_and_images_are_inverse_for_all_256_values():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pixels = to_pixels(values, CPU)
    assert pixels.shape == (1, 3, 16, 16)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    np.testing.assert_array_equal(to_images(pixels), values)


def test_images_keep_their_channels_rows_and_columns_apart():
    pixels = to_pixels(IMAGES, CPU)
    assert float(pixels[1, 2, 3, 4]) == pytest.approx(IMAGES[1, 3, 4, 2] / 127.5 - 1)
    np.testing.assert_array_equal(to_images(pixels), IMAGES)


def test_pixels_beyond_the_range_are_clipped():
    pixels = torch.tensor([-7.0, -1.0, 0.999, 1.0, 7.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_images(pixels)[0, 0, :, 0].tolist() == [0, 0, 255, 255, 255]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_autoencoder_encodes_and_decodes_the_same_each_time(kind):
    model = tiny_autoencoder(kind).train()
    codec = Codec(model, 2.0)
    latents = codec.encode(IMAGES)
    assert (latents.shape, latents.dtype) == ((2, 4, 8, 8), torch.float32)
    assert not latents.requires_grad
    assert torch.equal(codec.encode(IMAGES), latents)
    images = codec.decode(latents)
    assert (images.shape, images.dtype) == ((2, 16, 16, 3), np.uint8)
    assert model.training, "the mode is restored"


def test_encoding_takes_the_mode_of_the_posterior():
    model = tiny_autoencoder("AutoencoderKL")
    with torch.no_grad():
        mean = model.encode(to_pixels(IMAGES, CPU)).latent_dist.mean
    torch.testing.assert_close(Codec(model, 0.5).encode(IMAGES), mean * 0.5)


@pytest.mark.parametrize("scale", [0.25, 4.0, 1 / 3, 7.7])
def test_the_scale_multiplies_latents_and_changes_no_image(scale):
    model = tiny_autoencoder("PatchAutoencoder")
    plain, scaled = Codec(model), Codec(model, scale)
    latents = scaled.encode(IMAGES)
    torch.testing.assert_close(latents, plain.encode(IMAGES) * scale)
    one = plain.decode(plain.encode(IMAGES)).astype(int)
    other = scaled.decode(latents).astype(int)
    assert np.abs(one - other).max() <= (0 if math.log2(scale).is_integer() else 1)


def test_the_codec_shifts_and_scales_as_diffusers_does():
    model = tiny_autoencoder("AutoencoderKL", scaling_factor=0.5, shift_factor=0.25)
    codec, plain = Codec(model, 0.5, 0.25), Codec(model)
    latents = codec.encode(IMAGES)
    torch.testing.assert_close(latents, (plain.encode(IMAGES) - 0.25) * 0.5)
    assert np.array_equal(codec.decode(latents), plain.decode(latents / 0.5 + 0.25))


def test_the_codec_scales_and_shifts_each_channel_by_itself():
    plain = Codec(tiny_autoencoder("AutoencoderKL"))
    scale, shift = (0.5, 1.0, 2.0, 4.0), (0.0, 0.25, -0.5, 1.0)
    codec = Codec(plain.model, scale, shift)
    latents = codec.encode(IMAGES)
    one_by_one = [Codec(plain.model, *numbers) for numbers in zip(scale, shift, strict=True)]
    for channel, other in enumerate(one_by_one):
        assert torch.equal(latents[:, channel], other.encode(IMAGES)[:, channel])
    assert np.array_equal(codec.decode(latents), plain.decode(plain.encode(IMAGES)))

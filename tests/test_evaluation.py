"""Held-out evaluation: its intervals, and samples that pair across models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_unet import CONFIG

from advloop.autoencoder import Codec, PatchAutoencoder
from advloop.criterion import Criterion
from advloop.evaluation import draw_samples, mean_and_interval, student_t
from advloop.features import image_features, load_network
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.unet import build_unet

CPU = torch.device("cpu")
PARAMS = EvaluateParams(
    feature_size=32, num_samples=5, num_seeds=2, num_inference_steps=3, batch_size=5
)


def make_criterion(precision: str = "fp32") -> Criterion:
    return Criterion(
        objective=noise_only,
        weight=0.0,
        discriminator=None,
        diffusion=DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction"),
        precision=precision,
        where=CPU,
    )


def make_codec() -> Codec:
    torch.manual_seed(0)
    return Codec(PatchAutoencoder(4, 4, 8, 1, 1))


# Quantiles of Student's t as printed in tables; the expansion is good to a thousandth from 9 on.
@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (8, 2.306), (9, 2.262), (15, 2.131), (30, 2.042)],
)
def test_quantiles_are_those_of_student(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, rel=1e-3)


def test_mean_and_interval_of_a_hand_made_case():
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5)  # standard deviation 1


def test_95_percent_of_the_intervals_of_normal_values_cover_their_mean():
    stream = np.random.default_rng(0)
    covered = 0
    for values in stream.normal(size=(2000, 3)):
        mean, half = mean_and_interval(values.tolist())
        covered += abs(mean) <= half
    # standard error of a share of 0.95 in 2,000 draws: 0.0049
    assert covered / 2000 == pytest.approx(0.95, abs=4 * 0.0049)


def test_samples_do_not_depend_on_the_batch_beyond_rounding():
    denoiser, criterion, codec = build_unet(CONFIG, seed=0), make_criterion(), make_codec()
    drawn = [
        draw_samples(denoiser, criterion, codec, replace(PARAMS, batch_size=size), 0, 0)
        for size in (5, 2)
    ]
    assert drawn[0].shape == (5, 32, 32, 3)
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1  # one grey level of rounding


def test_samples_differ_by_seed_and_by_sampling_seed():
    denoiser, criterion, codec = build_unet(CONFIG, seed=0), make_criterion(), make_codec()
    drawn = [
        draw_samples(denoiser, criterion, codec, PARAMS, *key) for key in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(not np.array_equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    again = draw_samples(denoiser, criterion, codec, PARAMS, 0, 0)
    assert np.array_equal(again, drawn[0])


def test_samples_are_decoded_in_fp32_as_the_floor_is(monkeypatch):
    seen = []
    codec = make_codec()
    decode = codec.decode

    def spy(latents):
        seen.append((latents.dtype, torch.is_autocast_enabled("cpu")))
        return decode(latents)

    monkeypatch.setattr(codec, "decode", spy)
    draw_samples(build_unet(CONFIG, seed=0), make_criterion("bf16"), codec, PARAMS, 0, 0)
    assert seen == [(torch.float32, False)]


def test_features_are_a_row_an_image_and_follow_its_content_alone():
    images = np.random.default_rng(0).integers(256, size=(3, 24, 24, 3), dtype=np.uint8)
    network = load_network(CPU)
    features = image_features(network, images, 32, CPU)
    assert features.shape == (3, 1280)
    assert features.dtype == torch.float32
    alone = image_features(network, images[1:2], 32, CPU)
    torch.testing.assert_close(alone[0], features[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features[0], features[1], atol=1e-3)


def test_feature_network_is_frozen_and_in_evaluation_mode():
    network = load_network(CPU)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())

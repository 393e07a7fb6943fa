"""Held-out evaluation: samples that pair across models, and what is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_unet import CONFIG

from advloop.autoencoder import Codec, PatchAutoencoder
from advloop.criterion import Criterion
from advloop.evaluation import draw_samples, evaluate_model
from advloop.features import image_features, load_network
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.unet import build_unet

CPU = torch.device("cpu")
PARAMS = EvaluateParams(
    feature_size=32, num_samples=6, num_seeds=2, num_inference_steps=3, batch_size=6
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


def test_samples_do_not_depend_on_the_batch_beyond_rounding():
    denoiser, criterion, codec = build_unet(CONFIG, seed=0), make_criterion(), make_codec()
    drawn = [
        draw_samples(denoiser, criterion, codec, replace(PARAMS, batch_size=size), 0, 0)[1]
        for size in (6, 4)
    ]
    assert drawn[0].shape == (6, 32, 32, 3)
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1  # one grey level of rounding


def test_samples_differ_by_seed_and_by_sampling_seed():
    denoiser, criterion, codec = build_unet(CONFIG, seed=0), make_criterion(), make_codec()
    drawn = [
        draw_samples(denoiser, criterion, codec, PARAMS, *key)[1]
        for key in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(not np.array_equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    again = draw_samples(denoiser, criterion, codec, PARAMS, 0, 0)[1]
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


@pytest.fixture
def reals():
    """(training latents, evaluation-only latents, evaluation-only images)."""
    stream = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 4, 8, 8, generator=stream) for n in (20, 8))
    images = np.random.default_rng(0).integers(256, size=(8, 32, 32, 3), dtype=np.uint8)
    return train, test, images


def evaluate(train, test, images):
    return evaluate_model(
        build_unet(CONFIG, seed=0),
        make_criterion(),
        make_codec(),
        train,
        test,
        image_features(load_network(CPU), images, 32, CPU),
        PARAMS,
        0,
        lambda items: items,
    )


def test_a_model_is_measured_with_an_interval_on_every_figure(reals):
    row, drawn = evaluate(*reals)
    assert drawn.shape == (6, 32, 32, 3)
    figures = {name for name in row if not name.endswith("_ci95")} - {"test_noise_loss"}
    assert {"kid_lite0", "coverage_lite0", "memorisation_ratio"} <= figures
    assert all(row[f"{name}_ci95"] >= 0 for name in figures)


def test_memorisation_ratio_is_zero_where_samples_are_training_latents(reals, monkeypatch):
    train, _, images = reals
    copies = (train[:6].clone(), images[:6])
    monkeypatch.setattr("advloop.evaluation.draw_samples", lambda *_: copies)
    row, _ = evaluate(*reals)
    assert row["memorisation_ratio"] < 0.01

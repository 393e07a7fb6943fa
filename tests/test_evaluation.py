"""Held-out evaluation: samples that pair across models, and what is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_unet import CONFIG

from advloop.autoencoder import Codec, PatchAutoencoder
from advloop.core.errors import UserError
from advloop.criterion import Criterion
from advloop.dataset import Dataset
from advloop.evaluation.features import image_features, load_features, load_network
from advloop.evaluation.model import draw_samples, evaluate_model
from advloop.evaluation.neighbours import nearest_distances
from advloop.evaluation.reals import Reals, draw_images, load_reals, save_reals
from advloop.objectives.none import noise_only
from advloop.params.diffusion import DiffusionParams
from advloop.params.evaluation import EvaluateParams
from advloop.unet import build_unet

CPU = torch.device("cpu")
PARAMS = EvaluateParams(
    features="lite0",
    feature_size=32,
    num_samples=6,
    num_seeds=3,
    num_inference_steps=3,
    batch_size=6,
    critic_widths=[8],
    critic_epochs=2,
    critic_learning_rate=1e-2,
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
def held_out():
    """(training latents, codec, evaluation-only reals of three groups)."""
    stream = torch.Generator().manual_seed(0)
    train, latents = torch.randn(20, 4, 8, 8, generator=stream), torch.randn(16, 4, 8, 8)
    images = np.random.default_rng(0).integers(256, size=(8, 32, 32, 3), dtype=np.uint8)
    features = load_features("lite0", make_codec(), 32, CPU)(images)
    nearest = float(nearest_distances(latents[:8], train, 6).median())
    return train, Reals(
        features={"tune": features, "test": features},
        latents=latents.unflatten(0, (2, 8)),
        groups=["a", "a", "a", "b", "b", "b", "c", "c"],
        nearest=nearest,
    )


def evaluate(train, reals):
    codec = make_codec()
    return evaluate_model(
        build_unet(CONFIG, seed=0),
        make_criterion(),
        codec,
        load_features("lite0", codec, 32, CPU),
        train,
        reals,
        PARAMS,
        0,
        lambda items: items,
    )


def test_a_model_is_measured_with_an_interval_on_every_figure(held_out):
    row, (latents, images) = evaluate(*held_out)
    assert (latents.shape, images.shape) == ((6, 4, 8, 8), (6, 32, 32, 3))
    assert set(row["seeds"]) == {
        *(f"{name}_lite0" for name in ("kid", "precision", "recall", "density", "coverage")),
        "tune_kid_lite0",
        "critic_accuracy",
        "critic_auc",
        "critic_gap",
        "memorisation_ratio",
    }
    for name, values in row["seeds"].items():
        assert len(values) == PARAMS.num_seeds
        assert row[f"{name}_ci95"] >= 0
    assert {"test_noise_loss", "critic_accuracy_null_se", "critic_auc_null_se"} <= set(row)


def test_memorisation_ratio_is_zero_where_samples_are_training_latents(held_out, monkeypatch):
    train, _ = held_out
    images = np.zeros((6, 32, 32, 3), dtype=np.uint8)
    copies = (train[:6].clone(), images)
    monkeypatch.setattr("advloop.evaluation.model.draw_samples", lambda *_: copies)
    row, _ = evaluate(*held_out)
    assert row["memorisation_ratio"] < 0.01


def test_test_noise_loss_is_that_of_the_images_as_they_are(held_out):
    train, reals = held_out
    row, _ = evaluate(train, reals)
    turned = replace(reals, latents=reals.latents.clone())
    turned.latents[1] = 7.0
    assert evaluate(train, turned)[0]["test_noise_loss"] == row["test_noise_loss"]


def test_parts_of_the_drawn_images_are_no_parts_of_the_manifest():
    """Groups stand one after another there; a third of the draw must hold images of each."""
    images = np.repeat(np.arange(60, dtype=np.uint8), 4 * 4 * 3).reshape(60, 4, 4, 3)
    groups = [f"g{row // 20}" for row in range(60)]
    dataset = Dataset(images, [str(row) for row in range(60)], groups, ["train"] * 60)
    drawn = draw_images(dataset, "train", "dihedral", torch.Generator().manual_seed(0), 45)
    rows = drawn[:, 0, 0, 0].astype(int)
    assert len(set(rows.tolist())) == 45
    for part in np.array_split(rows, 3):
        # 15 of 60 rows, of which 20 are of a group: none of them has chance 0.0008
        assert set(part // 20) == {0, 1, 2}


def test_reals_come_back_as_they_were_saved(held_out, tmp_path):
    _, reals = held_out
    save_reals(tmp_path / "reals.pt", reals)
    again = load_reals(tmp_path / "reals.pt", reals.latents.flatten(0, 1))
    assert torch.equal(again.latents, reals.latents)
    assert (again.groups, again.nearest) == (reals.groups, reals.nearest)
    assert all(torch.equal(again.features[name], reals.features[name]) for name in reals.features)


def test_latents_that_are_not_those_of_the_saved_reals_are_refused_in_one_line(held_out, tmp_path):
    _, reals = held_out
    save_reals(tmp_path / "reals.pt", reals)
    with pytest.raises(UserError, match=r"reals\.pt: not a set of evaluation reals") as caught:
        load_reals(tmp_path / "reals.pt", torch.zeros(15, 4, 8, 8))
    assert "\n" not in str(caught.value)

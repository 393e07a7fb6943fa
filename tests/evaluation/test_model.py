"""The evaluation of one model: samples that pair across models, and every score of theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_evaluation import evaluate_params, small_codec
from small_params import diffusion_params
from tiny_unet import CONFIG

from advloop.data.classes import Classes
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.processes import process_of
from advloop.evaluation import metrics, model
from advloop.evaluation.critic import statistics
from advloop.evaluation.features import load_features
from advloop.evaluation.model import Evaluated, Judge, evaluate_model, sample_model, viability
from advloop.evaluation.reals import Reals, nearest_training
from advloop.evaluation.views import VIEWS, Drawn, RealSet, image_statistics
from advloop.models.denoiser import build_denoiser
from advloop.models.discriminator import Discriminator

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1] * 4)
CLASSES = Classes(("a", "b"), {"train": LABELS, "test": LABELS.repeat(2)})


def real_set(judge_features, seed: int, groups: list[str], labels=None) -> RealSet:
    stream = np.random.default_rng(seed)
    images = stream.integers(256, size=(len(groups), 32, 32, 3), dtype=np.uint8)
    latents = torch.from_numpy(stream.normal(size=(len(groups), 4, 8, 8))).float()
    return RealSet(
        images,
        judge_features(images),
        groups,
        statistics(latents, CPU)[None],
        image_statistics(images, CPU)[None],
        labels,
    )


@pytest.fixture
def judge() -> Judge:
    """Eight evaluation-only reals of three groups, beside 20 training latents."""
    stream, codec = torch.Generator().manual_seed(0), small_codec()
    train, test = (torch.randn(n, 4, 8, 8, generator=stream) for n in (20, 8))
    features, params = load_features("encoder", codec, 32, CPU), evaluate_params()
    groups = ["a", "a", "a", "b", "b", "b", "c", "c"]
    reals = Reals(
        real_set(features, 0, groups),
        real_set(features, 1, groups),
        count=6,
        latents=test,
        nearest=nearest_training(test, train, 6),
    )
    views = reals.views(params, 0, CPU)
    criterion = noise_criterion(process_of(diffusion_params()), "fp32", CPU)
    return Judge(criterion, codec, features, train, reals, views, params, seed=0)


def sampled(judge: Judge, sampling_seed: int = 0, split: str = "test") -> Drawn:
    return sample_model(build_denoiser(CONFIG, seed=0), judge, split, sampling_seed)[0]


def evaluate(judge: Judge, discriminator=None, **chosen) -> Evaluated:
    unet = build_denoiser(CONFIG, seed=0)
    return evaluate_model("base", unet, judge, lambda jobs: jobs, discriminator, **chosen)


def test_samples_follow_from_the_seeds_and_not_from_the_batch(judge):
    first = sampled(judge)
    assert first.images.shape == (6, 32, 32, 3)
    parts = sampled(replace(judge, params=evaluate_params(batch_size=4)))
    difference = first.images.astype(int) - parts.images
    assert np.abs(difference).max() <= 1  # a grey level of rounding
    assert torch.equal(sampled(judge).latents, first.latents)
    others = (sampled(judge, 1), sampled(replace(judge, seed=1)), sampled(judge, split="tune"))
    for other in others:
        assert not torch.equal(first.latents, other.latents)


def test_samples_are_decoded_in_fp32_like_the_floor(judge, monkeypatch):
    seen, decode = [], judge.codec.decode

    def spy(latents):
        seen.append((latents.dtype, torch.is_autocast_enabled("cpu")))
        return decode(latents)

    monkeypatch.setattr(judge.codec, "decode", spy)
    sampled(replace(judge, criterion=noise_criterion(process_of(diffusion_params()), "bf16", CPU)))
    assert seen == [(torch.float32, False)]


def test_a_model_has_every_score_by_sampling_seed(judge):
    found = evaluate(judge)
    scores, samples = found.scores, found.samples
    assert (scores.model, samples.viability) == ("base", None)
    by_seed = {score.name for score in scores.scores if len(score.values) == 3}
    views = {"pixels", "layout", "kid_encoder", "critic_gap", "image_critic_gap"}
    assert by_seed == views | {f"tune_{view}" for view in views} | {
        *(f"{metric.name}_encoder" for metric in metrics.METRICS),
        *("critic_accuracy", "critic_auc", "image_critic_auc", "memorisation_ratio"),
    }
    single = {score.name for score in scores.scores if len(score.values) == 1}
    nulls = {"critic_accuracy_null_se", "critic_auc_null_se"}
    assert single == {"test_noise_loss", "network_calls"} | nulls
    assert scores.get("network_calls").mean == 3
    assert torch.equal(samples.drawn.latents, sampled(judge).latents)


def test_views_are_known_without_each_group_of_the_test_images(judge):
    scores = evaluate(judge).scores
    for view in VIEWS:
        assert len(scores.get(view.name).without) == 3
        assert scores.get(view.name, "tune").without == ()


def test_a_model_that_tune_does_not_judge_is_not_sampled_for_it(judge):
    found = evaluate(judge, splits=("test",))
    assert {score.split for score in found.scores.scores} == {"test"}
    assert set(found.images) == {"test"}
    assert found.scores.get("pixels") == evaluate(judge).scores.get("pixels")


def test_images_are_those_of_the_first_sampling_seed_of_each_split(judge):
    for split, images in evaluate(judge).images.items():
        assert np.array_equal(images, sampled(judge, 0, split).images)


def test_the_base_model_may_take_more_steps_than_the_rounds_models(judge):
    params = evaluate_params(base_num_inference_steps=7)
    assert params.of_base().num_inference_steps == 7
    found = evaluate(replace(judge, params=params.of_base())).scores
    assert found.get("network_calls").mean == 7
    assert found.get("pixels") != evaluate(judge).scores.get("pixels")


def test_samples_compared_with_tune_are_not_those_that_are_reported(judge):
    """Else the choice would look at the very draws that the reported figure is made of."""
    drawn = [sampled(judge, seed, split).latents for split in ("test", "tune") for seed in range(3)]
    rows = torch.cat(drawn).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)


def test_memorisation_ratio_is_zero_if_samples_are_training_latents(judge, monkeypatch):
    assert evaluate(judge).scores.get("memorisation_ratio").mean > 0.1

    def copies(*_):
        images = np.random.default_rng(0).integers(256, size=(6, 32, 32, 3), dtype=np.uint8)
        return Drawn(images, judge.train_latents[:6], judge.features(images)), None

    monkeypatch.setattr(model, "sample_model", copies)
    assert evaluate(judge).scores.get("memorisation_ratio").mean == 0


def test_viability_is_the_mean_sigmoid_of_the_samples_logits(judge):
    torch.manual_seed(0)
    discriminator = Discriminator(4, [8], 0.3).eval()
    found = evaluate(judge, discriminator)
    scores, samples = found.scores, found.samples
    latents = [sampled(judge, index).latents for index in range(3)]
    with torch.no_grad():
        expected = [discriminator(x).sigmoid() for x in latents]
    torch.testing.assert_close(samples.viability, expected[0])
    found = scores.get("viability_score").values
    assert found == pytest.approx([float(value.mean()) for value in expected])
    assert len(set(found)) == 3
    parts = viability(discriminator, latents[0], None, 4)
    torch.testing.assert_close(parts, expected[0])  # in any batch


def test_samples_of_classes_are_judged_as_such(judge):
    torch.manual_seed(0)
    test = replace(judge.reals.test, labels=LABELS)
    conditional = replace(judge, classes=CLASSES, reals=replace(judge.reals, test=test))
    unet = build_denoiser(CONFIG | {"num_class_embeds": 2}, seed=0)
    discriminator = Discriminator(4, [8], 0.0, num_classes=2)
    torch.nn.init.normal_(discriminator.class_vectors.weight)
    found = evaluate_model("iter_0", unet, conditional, lambda x: x, discriminator.eval())
    scores, samples = found.scores, found.samples
    assert samples.labels.bincount().tolist() == [3, 3]
    assert len(scores.get("class_kid").values) == 3
    with torch.no_grad():
        expected = discriminator(samples.drawn.latents, labels=samples.labels).sigmoid()
    torch.testing.assert_close(samples.viability, expected)
    assert evaluate(judge).scores.find("class_kid") is None

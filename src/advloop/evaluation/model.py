"""The scores of one diffusion model: sample it, and compare with evaluation-only reals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from advloop.core.device import autocast, eval_mode
from advloop.core.random import batches, noise_for
from advloop.data.classes import Classes
from advloop.diffusion.criterion import Criterion, held_out
from advloop.diffusion.sampling import condition_on_labels, sample_ddim
from advloop.evaluation.critic import null_errors, two_sample_test
from advloop.evaluation.features import Features
from advloop.evaluation.metrics import measure, measure_classes
from advloop.evaluation.neighbours import nearest_rows
from advloop.evaluation.reals import Reals
from advloop.evaluation.scores import Metric, Scores, score_all
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser
from advloop.params.evaluation import EvaluateParams

Images = npt.NDArray[np.uint8]

MEMORISATION = Metric("memorisation_ratio", "memorisation ratio")
NOISE_LOSS = Metric("test_noise_loss", "noise loss", better="lower")
VIABILITY = Metric("viability_score", "viability", listed="table")


@dataclass(frozen=True)
class Samples:
    """The samples of one sampling seed. latents: (N, C, H, W); images: (N, S, S, 3).

    labels: (N,) or None. distances, neighbours: (N,), the distance to the nearest training latent
    and its row. viability: (N,), sigmoid(D) in (0, 1), or None if no discriminator judged them.
    """

    latents: torch.Tensor
    images: Images
    labels: torch.Tensor | None
    distances: torch.Tensor
    neighbours: torch.Tensor
    viability: torch.Tensor | None = None


@dataclass(frozen=True)
class Judge:
    """What every model of a run is measured with.

    train_latents: (M, C, H, W), with augmentation. classes: samples get the classes of the test
    images, in the same shares; None if unconditional.
    """

    criterion: Criterion
    codec: Codec
    features: Features
    train_latents: torch.Tensor
    reals: Reals
    params: EvaluateParams
    seed: int
    classes: Classes | None = None


def draw_samples(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    params: EvaluateParams,
    labels: torch.Tensor | None,
    count: int,
    *key: int | str,
) -> tuple[torch.Tensor, Images]:
    """``count`` DDIM samples: latents (N, C, H, W), and images (N, S, S, 3).

    labels: (N,), or None. Sample k's noise is keyed by (*key, k); ``key`` starts with the seed.
    """
    latents, images = [], []
    for part in batches(count, params.batch_size):
        noise = noise_for(part, denoiser.latent_shape, *key)
        own = None if labels is None else labels[part.start : part.stop].to(criterion.device)
        with eval_mode(denoiser), autocast(criterion.precision, criterion.device):
            sampled = sample_ddim(
                condition_on_labels(denoiser, own),
                noise.to(criterion.device),
                criterion.alphas_cumprod,
                criterion.diffusion.prediction_type,
                params.num_inference_steps,
            )
        latents.append(sampled.float())
        images.append(codec.decode(latents[-1]))  # in fp32, like the floor's images
    return torch.cat(latents), np.concatenate(images)


def sample_model(denoiser: Denoiser, judge: Judge, sampling_seed: int) -> Samples:
    """DDIM samples of one sampling seed, from the same noise for every model.

    Their key is (seed, "evaluate", sampling_seed): no discriminator has trained on this noise.
    """
    params = judge.params
    labels = None
    if judge.classes is not None:
        labels = judge.classes.sample_labels(
            "test", params.num_samples, judge.seed, "evaluate", sampling_seed
        )
    key = (judge.seed, "evaluate", sampling_seed)
    latents, images = draw_samples(
        denoiser, judge.criterion, judge.codec, params, labels, params.num_samples, *key
    )
    nearest = nearest_rows(latents, judge.train_latents, params.batch_size)
    return Samples(latents, images, labels, *nearest)


def viability(
    discriminator: nn.Module, latents: torch.Tensor, labels: torch.Tensor | None, batch_size: int
) -> torch.Tensor:
    """sigmoid(D) in (0, 1), (N,), of samples (N, C, H, W).

    discriminator: in evaluation mode. labels: (N,), if it is conditional.
    """
    parts = []
    with torch.no_grad():
        for part in batches(len(latents), batch_size):
            rows = slice(part.start, part.stop)
            own = None if labels is None else labels[rows].to(latents.device)
            parts.append(discriminator(latents[rows], labels=own))
    return torch.cat(parts).sigmoid()


def evaluate_model(
    name: str,
    denoiser: Denoiser,
    judge: Judge,
    progress: Callable[[Iterable[int]], Iterable[int]],
    discriminator: nn.Module | None = None,
) -> tuple[Scores, Samples]:
    """The held-out scores of one model, and the samples of its first sampling seed.

    memorisation_ratio: the median distance of samples to the nearest training latent, over that
    of the evaluation-only reals; far below 1, samples copy training images. viability_score:
    mean sigmoid(D) of the samples, by the round's discriminator. class_kid: with classes only.
    """
    reals, params, seed = judge.reals, judge.params, judge.seed
    device = judge.criterion.device
    sampled = [sample_model(denoiser, judge, k) for k in progress(range(params.num_seeds))]
    measured = [judge.features(one.images) for one in sampled]
    scores = measure(measured, reals.features, judge.features.name)
    labels = [one.labels for one in sampled if one.labels is not None]
    if reals.labels is not None and labels:
        scores += measure_classes(
            measured, labels, reals.features["test"], reals.labels, judge.features.name
        )
    fakes = [one.latents for one in sampled]
    scores += two_sample_test(reals.latents, reals.groups, fakes, params, seed, device)
    nearest = [float(one.distances.median()) / reals.nearest for one in sampled]
    scores += score_all({MEMORISATION: nearest})
    test = reals.latents[0]
    of_test = None if judge.classes is None else judge.classes.labels["test"][: len(test)]
    losses = held_out(judge.criterion, denoiser, test, seed, params.batch_size, labels=of_test)
    scores += score_all({NOISE_LOSS: [losses["noise_loss"]]})
    if discriminator is not None:
        size = params.batch_size
        judged = [viability(discriminator, one.latents, one.labels, size) for one in sampled]
        scores += score_all({VIABILITY: [float(found.mean()) for found in judged]})
        sampled[0] = replace(sampled[0], viability=judged[0])
    scores += null_errors(len(reals.groups), params.num_samples)
    return Scores(name, tuple(scores)), sampled[0]

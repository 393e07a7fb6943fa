"""Judge a diffusion model on evaluation-only reals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from advloop.autoencoder import Codec
from advloop.classes import Classes
from advloop.core.runtime import autocast, batches, eval_mode
from advloop.criterion import Criterion, held_out
from advloop.evaluation.critic import null_errors, two_sample_test
from advloop.evaluation.features import Features
from advloop.evaluation.metrics import make_row, measure, measure_classes
from advloop.evaluation.neighbours import nearest_distances
from advloop.evaluation.reals import Reals
from advloop.intervals import Seeds
from advloop.params.evaluation import EvaluateParams
from advloop.sampling import noise_for, sample_ddim
from advloop.unet import Denoiser, told

Images = npt.NDArray[np.uint8]
Drawn = tuple[torch.Tensor, Images]
"""Latents (N, C, H, W), and the images (N, S, S, 3) that they decode to."""


def draw_samples(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    params: EvaluateParams,
    seed: int,
    round_index: int,
    labels: torch.Tensor | None = None,
) -> Drawn:
    """DDIM samples, (N, C, H, W) and decoded, whose noise is the same for every model.

    Keyed by (seed, "evaluate", round_index, k): noise that no discriminator has seen. labels:
    (N,) their classes, of a model that is told of them.
    """
    drawn, images = [], []
    for part in batches(params.num_samples, params.batch_size):
        shape = denoiser.latent_shape
        noise = noise_for(part, shape, seed, "evaluate", round_index).to(criterion.where)
        own = None if labels is None else labels[part.start : part.stop].to(criterion.where)
        with eval_mode(denoiser), autocast(criterion.precision, criterion.where):
            latents = sample_ddim(
                told(denoiser, own),
                noise,
                criterion.alphas_cumprod,
                criterion.diffusion.prediction_type,
                params.num_inference_steps,
            )
        drawn.append(latents.float())
        images.append(codec.decode(drawn[-1]))  # in fp32, as the floor is
    return torch.cat(drawn), np.concatenate(images)


def sample_labels(
    classes: Classes, params: EvaluateParams, seed: int, round_index: int
) -> torch.Tensor:
    """The classes (N,) of what ``draw_samples`` draws: each has its share of the test images."""
    return classes.drawn("test", params.num_samples, seed, "evaluate", round_index)


def evaluate_model(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    features: Features,
    train_latents: torch.Tensor,
    reals: Reals,
    params: EvaluateParams,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]],
    classes: Classes | None = None,
) -> tuple[dict[str, Any], Drawn]:
    """The row of held-out metrics of one model, and the samples of its first sampling seed.

    train_latents: (M, C, H, W) with augmentation. memorisation_ratio: the median distance of
    samples to the nearest training latent, over that of the evaluation-only reals; far
    below 1, samples copy training images. classes: each then has its share of the test images
    among the samples, and class_kid compares samples and images class by class.
    """
    drawn, shown, nearest, labels = [], [], [], []
    for index in progress(range(params.num_seeds)):
        told_of = None
        if classes is not None:
            told_of = sample_labels(classes, params, seed, index)
            labels.append(told_of)
        latents, images = draw_samples(denoiser, criterion, codec, params, seed, index, told_of)
        distances = nearest_distances(latents, train_latents, params.batch_size)
        nearest.append(float(distances.median()) / reals.nearest)
        drawn.append(latents)
        shown.append(images)
    measured = [features(images) for images in shown]
    by_class = {}
    if reals.labels is not None and classes is not None:
        by_class = measure_classes(
            measured, labels, reals.features["test"], reals.labels, features.name
        )
    seeds: Seeds = {
        **measure(measured, reals.features, features.name),
        **by_class,
        **two_sample_test(reals.latents, reals.groups, drawn, params, seed, criterion.where),
        "memorisation_ratio": nearest,
    }
    test = reals.latents[0]
    of_test = None if classes is None else classes.labels["test"][: len(test)]
    losses = held_out(criterion, denoiser, test, seed, params.batch_size, labels=of_test)
    nulls = null_errors(len(reals.groups), params.num_samples)
    return make_row(seeds, test_noise_loss=losses["noise_loss"], **nulls), (drawn[0], shown[0])

"""The scores of one diffusion model: sample it, and compare with evaluation-only reals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from advloop.core.device import autocast, eval_mode
from advloop.core.random import batches, noise_for
from advloop.data.classes import Classes, without_captions
from advloop.diffusion.criterion import Criterion, held_out
from advloop.diffusion.sampling import calls_of, condition_on_labels, sample
from advloop.evaluation.critic import null_errors
from advloop.evaluation.features import Features
from advloop.evaluation.metrics import measure, measure_classes
from advloop.evaluation.neighbours import nearest_rows
from advloop.evaluation.reals import Reals
from advloop.evaluation.scores import Metric, Scores, score_all
from advloop.evaluation.views import Drawn, Values, Views, view_scores
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser
from advloop.params.evaluation import EvaluateParams

Images = npt.NDArray[np.uint8]

MEMORISATION = Metric("memorisation_ratio", "memorisation ratio")
NOISE_LOSS = Metric("test_noise_loss", "noise loss", better="lower")
VIABILITY = Metric("viability_score", "viability", listed="table")
CALLS = Metric("network_calls", "network calls a sample", better="lower", listed="table")
PURPOSE = {"test": "evaluate", "tune": "select"}  # of the samples compared with each split
Job = tuple[str, int]  # split, sampling seed


@dataclass(frozen=True)
class Samples:
    """The samples of one sampling seed that are compared with the test images.

    drawn: N of them. labels: (N,) or None. distances, neighbours: (N,), the distance to the
    nearest training latent and its row. viability: (N,), sigmoid(D) in (0, 1), or None if no
    discriminator judged them.
    """

    drawn: Drawn
    labels: torch.Tensor | None
    distances: torch.Tensor
    neighbours: torch.Tensor
    viability: torch.Tensor | None = None


@dataclass(frozen=True)
class Evaluated:
    """samples: of the first sampling seed. images: (N, S, S, 3) of that seed, by split."""

    scores: Scores
    samples: Samples
    images: Mapping[str, Images]


@dataclass(frozen=True)
class Judge:
    """What every model of a run is measured with.

    train_latents: (M, C, H, W), with augmentation. views: by split. classes: samples get the
    classes of the test images, in the same shares, or captions of theirs; None if unconditional.
    """

    criterion: Criterion
    codec: Codec
    features: Features
    train_latents: torch.Tensor
    reals: Reals
    views: Mapping[str, Views]
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
    """``count`` samples: latents (N, C, H, W), and images (N, S, S, 3).

    labels: (N,), or None. Sample k's noise is keyed by (*key, k); ``key`` starts with the seed.
    """
    latents, images = [], []
    for part in batches(count, params.batch_size):
        noise = noise_for(part, denoiser.latent_shape, *key)
        own = None if labels is None else labels[part.start : part.stop].to(criterion.device)
        with eval_mode(denoiser), autocast(criterion.precision, criterion.device):
            sampled = sample(
                criterion.process,
                condition_on_labels(denoiser, own, params.guidance_scale, denoiser.null_label),
                noise.to(criterion.device),
                params.num_inference_steps,
            )
        latents.append(sampled.float())
        images.append(codec.decode(latents[-1]))  # in fp32, like the floor's images
    return torch.cat(latents), np.concatenate(images)


def sample_model(
    denoiser: Denoiser, judge: Judge, split: str, sampling_seed: int
) -> tuple[Drawn, torch.Tensor | None]:
    """Samples of one sampling seed, from the same noise for every model, and their labels.

    Samples that are compared with ``tune`` are others than those compared with ``test``, so that
    the selection does not look at the draws that are reported. No discriminator has trained on
    this noise.
    """
    params, count = judge.params, judge.reals.count
    key = (judge.seed, PURPOSE[split], sampling_seed)
    labels = None
    if judge.classes is not None:
        labels = judge.classes.sample_labels("test", count, *key)
    latents, images = draw_samples(
        denoiser, judge.criterion, judge.codec, params, labels, count, *key
    )
    return Drawn(images, latents, judge.features(images)), labels


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
    progress: Callable[[Iterable[Job]], Iterable[Job]],
    discriminator: nn.Module | None = None,
    splits: Sequence[str] = tuple(PURPOSE),
) -> Evaluated:
    """The held-out scores of one model, and some of its samples.

    splits: without ``tune``, `select` cannot hand the model on.
    memorisation_ratio: the median distance of samples to the nearest training latent, over that
    of the evaluation-only reals; far below 1, samples copy training images. viability_score:
    mean sigmoid(D) of the samples, by the round's discriminator. class_kid: with classes only.
    """
    reals, params, network = judge.reals, judge.params, judge.features.name
    seeds = range(params.num_seeds)
    jobs = progress([(split, k) for split in splits for k in seeds])
    sampled: list[Samples] = []
    images: dict[str, Images] = {}
    views: dict[str, list[Values]] = {split: [] for split in splits}
    for split, k in jobs:
        drawn, own = sample_model(denoiser, judge, split, k)
        images.setdefault(split, drawn.images)
        # What tune selects needs no interval over groups.
        views[split].append(judge.views[split](drawn, k, jackknife=split == "test"))
        if split == "test":
            nearest = nearest_rows(drawn.latents, judge.train_latents, params.batch_size)
            sampled.append(Samples(drawn, own, *nearest))
    measured = [one.drawn.features for one in sampled]
    scores = [score for split in splits for score in view_scores(views[split], network, split)]
    scores += measure(measured, reals.test.features, network)
    labels = [one.labels for one in sampled if one.labels is not None]
    if without_captions(judge.classes) and reals.test.labels is not None and labels:
        of_test = reals.test.features, reals.test.labels
        scores += measure_classes(measured, labels, *of_test, network)
    ratios = [float(one.distances.median()) / reals.nearest for one in sampled]
    scores += score_all({MEMORISATION: ratios})
    losses = held_out(
        judge.criterion,
        denoiser,
        reals.latents,
        judge.seed,
        params.batch_size,
        labels=reals.test.labels,
    )
    process = judge.criterion.process
    calls = calls_of(process, params.num_inference_steps, params.guidance_scale)
    scores += score_all({NOISE_LOSS: [losses["noise_loss"]], CALLS: [calls]})
    if discriminator is not None:
        size = params.batch_size
        judged = [viability(discriminator, s.drawn.latents, s.labels, size) for s in sampled]
        scores += score_all({VIABILITY: [float(found.mean()) for found in judged]})
        sampled[0] = replace(sampled[0], viability=judged[0])
    scores += null_errors(len(reals.test.groups), reals.count)
    return Evaluated(Scores(name, tuple(scores)), sampled[0], images)

"""The views that models are judged by: five distances of a set of samples from real images.

Of different kinds, and none of them part of any training: pixels at several scales, whole images
without texture, features of a network, and critics of latents and of decoded images. What the
decoder forgives, the critics of images do not see and those of latents do. A claim needs two that
pass the exam of the run (exam.py), and none against it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from advloop.core.random import batches
from advloop.evaluation.critic import ACCURACY, AUC, GAP, IMAGE_AUC, IMAGE_GAP, fresh_critic
from advloop.evaluation.critic import statistics as critic_statistics
from advloop.evaluation.kernels import Measured, mean_of
from advloop.evaluation.kid import KID, kernel_distance
from advloop.evaluation.layout import LAYOUT, energy_distance, thumbnails
from advloop.evaluation.pixels import PIXELS, PixelView
from advloop.evaluation.scores import Metric, Score
from advloop.models.codec import to_pixels
from advloop.params.evaluation import EvaluateParams

Images = npt.NDArray[np.uint8]
Values = Mapping[Metric, Measured]

VIEWS = (PIXELS, LAYOUT, KID, GAP, IMAGE_GAP)
BATCH = 256  # images at once; bounds memory, changes no value
CONTRAST = 2.0  # spreads pixels in [-1, 1] over the critics' thresholds


@dataclass(frozen=True)
class RealSet:
    """One split of the evaluation-only reals.

    images: (N, S, S, 3), each in a random variant of the training set's augmentation; features:
    (N, D) of them. groups: (N,). latent_statistics, image_statistics: (V, N, …) of all variants,
    for the critics. labels: (N,) classes, or None.
    """

    images: Images
    features: torch.Tensor
    groups: Sequence[str]
    latent_statistics: torch.Tensor
    image_statistics: torch.Tensor
    labels: torch.Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """A set to be judged. images: (M, S, S, 3); latents: (M, C, H, W); features: (M, D).

    groups: (M,), which of the images share a group; () if each is its own, as a sample is.
    """

    images: Images
    latents: torch.Tensor
    features: torch.Tensor
    groups: Sequence[Hashable] = ()


def image_statistics(images: Images, device: torch.device) -> torch.Tensor:
    """``critic.statistics`` of images (N, S, S, 3) uint8: (N, D) on ``device``."""
    found = []
    for part in batches(len(images), BATCH):
        pixels = to_pixels(images[part.start : part.stop], device)
        found.append(critic_statistics(CONTRAST * pixels, device))
    return torch.cat(found)


class Views:
    """The views against one split of the reals."""

    def __init__(
        self,
        reals: RealSet,
        params: EvaluateParams,
        seed: int,
        device: torch.device,
    ) -> None:
        self.reals, self.params, self.seed, self.device = reals, params, seed, device
        self.pixels = PixelView(reals.images, reals.groups, seed)
        self.thumbnails = thumbnails(reals.images)

    def __call__(self, drawn: Drawn, index: int, jackknife: bool = True) -> Values:
        """Every view of one set, and the critics' other figures.

        index: of its sampling seed; the critics of each have their own initialisation. jackknife:
        also without each group of the reals.
        """
        whole, groups = thumbnails(drawn.images), self.reals.groups if jackknife else ()
        return {
            PIXELS: mean_of(self.pixels.levels(drawn.images, jackknife)),
            LAYOUT: energy_distance(whole, self.thumbnails, groups),
            KID: kernel_distance(drawn.features, self.reals.features, groups),
            **self._critics(drawn, index, jackknife),
        }

    def _critics(self, drawn: Drawn, index: int, jackknife: bool) -> Values:
        reals, groups = self.reals, fold_groups(drawn.groups, len(drawn.images))
        folded = fold_groups(reals.groups, len(reals.groups))
        latents, images = (
            fresh_critic(
                real.to(self.device), folded, fake, groups, self.params, self.seed, key, index
            )
            for key, real, fake in (
                ("critic", reals.latent_statistics, critic_statistics(drawn.latents, self.device)),
                (
                    "image critic",
                    reals.image_statistics,
                    image_statistics(drawn.images, self.device),
                ),
            )
        )
        gaps = (one.gap if jackknife else Measured(one.gap.value) for one in (latents, images))
        single = {AUC: latents.auc, ACCURACY: latents.accuracy, IMAGE_AUC: images.auc}
        others = {metric: Measured(value) for metric, value in single.items()}
        return dict(zip((GAP, IMAGE_GAP), gaps, strict=True)) | others


def fold_groups(groups: Sequence[Hashable], count: int) -> Sequence[Hashable]:
    """What a critic's folds keep together, of ``count`` images: their groups, if there are several.

    tune, or a set of training images, may be one group: a critic may then know the looks of those
    that it judges, for every model alike.
    """
    return groups if len(set(groups)) > 1 else range(count)


def view_scores(values: Sequence[Values], features: str, split: str = "test") -> list[Score]:
    """Scores of the values of each sampling seed. features: the network's name, of KID."""
    return [
        Score(
            metric,
            tuple(found[metric].value for found in values),
            features if metric == KID else "",
            split,
            mean_of([found[metric] for found in values]).without,
        )
        for metric in (values[0] if split == "test" else VIEWS)
    ]

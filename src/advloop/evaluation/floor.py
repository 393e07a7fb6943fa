"""The real images that models are measured against, and the scores of perfect models.

The floor is the score of real images of other groups, as a perfect model might draw them. The
bound is the score of the same images through the autoencoder: no diffusion model on its latents can
beat it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from advloop.core.errors import UserError
from advloop.core.random import generator
from advloop.data.augmentation import augment_images
from advloop.data.classes import Classes, count_classes, without_captions
from advloop.data.dataset import Dataset
from advloop.data.draws import draw_images, draw_rows
from advloop.data.splits import jackknife_problem
from advloop.evaluation.critic import statistics
from advloop.evaluation.features import Features
from advloop.evaluation.metrics import measure, measure_classes, require_set
from advloop.evaluation.reals import Reals, nearest_training
from advloop.evaluation.results import AUTOENCODER, REALS
from advloop.evaluation.scores import Scores
from advloop.evaluation.views import Drawn, RealSet, Views, image_statistics, view_scores
from advloop.models.codec import Codec
from advloop.params.data import VARIANTS
from advloop.params.evaluation import EvaluateParams

Images = npt.NDArray[np.uint8]
EXAMPLES = 16  # test images in the gallery


@dataclass(frozen=True)
class Sources:
    """Real images and their latents. train, test: (V * N, C, H, W), variant by variant.

    data, latents: the folders that they come from, for messages.
    """

    data: Path
    latents: Path
    dataset: Dataset
    augmentation: str
    features: Features
    codec: Codec
    train: torch.Tensor
    test: torch.Tensor
    classes: Classes | None
    params: EvaluateParams
    seed: int
    device: torch.device

    def stream(self, *key: str) -> torch.Generator:
        return generator(self.seed, "evaluate_reals", *key)

    def rows(self, split: str, count: int | None = None) -> npt.NDArray[np.int64]:
        """Which images (N,) of the data set ``images`` draws."""
        return draw_rows(self.dataset, split, self.stream(split), count)

    def images(self, split: str, count: int | None = None) -> Images:
        return draw_images(self.dataset, split, self.augmentation, self.stream(split), count)

    def labels(self, split: str, count: int | None = None) -> torch.Tensor | None:
        """The classes or captions (N,) of what ``images`` draws, or None."""
        if self.classes is None:
            return None
        chosen = self.rows(split, count)
        return self.classes.to_labels([self.dataset.conditions[row] for row in chosen], self.data)

    def check(self) -> None:
        """Raise UserError unless images and latents belong together."""
        count = len(self.dataset.rows("test"))
        if len(self.test) % count:
            raise UserError(
                f"{self.latents / 'test.pt'}: {len(self.test)} latents of {count} images; remake "
                "it with `dvc repro`"
            )
        if (self.classes is None) == bool(self.dataset.conditions):
            found = len(set(self.dataset.conditions))
            raise UserError(
                f"{self.data / 'manifest.csv'}: has {found} classes, but the latents have "
                f"{count_classes(self.classes)}; remake both with `dvc repro`"
            )

    def drawn(self, images: Images, groups: Sequence[Hashable] = ()) -> Drawn:
        """Images (N, S, S, 3) as the views take them."""
        latents = self.codec.encode_all(images, self.params.batch_size)
        return Drawn(images, latents, self.features(images), groups)


def make_reals(sources: Sources) -> Reals:
    """The evaluation-only reals; UserError if images and latents do not belong together.

    All sets that are compared are equally large: as many images as evaluate.num_samples, or as
    the training images allow for one set a sampling seed.
    """
    sources.check()
    params, of_test = sources.params, sources.dataset.rows("test")
    drawn = sources.rows("test", params.num_reals)
    if problem := jackknife_problem([sources.dataset.groups[row] for row in drawn]):
        raise UserError(
            f"params.yaml: evaluate.num_reals={params.num_reals} draws a set which {problem}; use "
            "more, or null"
        )
    latents = sources.test[torch.from_numpy(np.searchsorted(of_test, drawn))]
    available = len(sources.dataset.rows("train")) // params.num_seeds
    require_set(min(available, params.num_samples))
    return Reals(
        test=_real_set(sources, "test"),
        tune=_real_set(sources, "tune"),
        count=min(params.num_samples, available),
        latents=latents,
        nearest=nearest_training(latents.to(sources.device), sources.train, params.batch_size),
    )


def _real_set(sources: Sources, split: str) -> RealSet:
    count = sources.params.num_reals
    rows, images = sources.rows(split, count), sources.images(split, count)
    originals = sources.dataset.images[rows]
    variants = [augment_images(originals, k) for k in range(VARIANTS[sources.augmentation])]
    size = sources.params.batch_size
    latents = [statistics(sources.codec.encode_all(one, size), sources.device) for one in variants]
    return RealSet(
        images,
        sources.features(images),
        [sources.dataset.groups[row] for row in rows],
        torch.stack(latents),
        torch.stack([image_statistics(one, sources.device) for one in variants]),
        sources.labels(split, count),
    )


@dataclass(frozen=True)
class Floor:
    """One set for each sampling seed. clean: real images of other groups; bound: the same
    through the autoencoder. scores: of both.
    """

    clean: Sequence[Drawn]
    bound: Sequence[Drawn]
    scores: tuple[Scores, Scores]


def measure_reals(
    sources: Sources,
    reals: Reals,
    views: Views,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> Floor:
    """The scores of the floor and of the bound."""
    params, dataset, count = sources.params, sources.dataset, reals.count
    wanted = count * params.num_seeds
    rows = sources.rows("train", wanted)
    images, labels = sources.images("train", wanted), sources.labels("train", wanted)
    clean, bound = [], []
    for index in progress(range(params.num_seeds)):
        own = slice(index * count, (index + 1) * count)
        clean.append(sources.drawn(images[own], [dataset.groups[row] for row in rows[own]]))
        latents = clean[-1].latents
        pictures = sources.codec.decode_all(latents, params.batch_size)
        # A model that draws perfect latents has these, and not those of its decoded images.
        bound.append(Drawn(pictures, latents, sources.features(pictures), groups=clean[-1].groups))
    network = sources.features.name
    scores = []
    for name, sets in ((REALS, clean), (AUTOENCODER, bound)):
        features = [one.features for one in sets]
        found = measure(features, reals.test.features, network)
        found += view_scores([views(one, k) for k, one in enumerate(sets)], network)
        of_test = reals.test.labels if without_captions(sources.classes) else None
        if labels is not None and of_test is not None:
            test = reals.test.features, of_test
            found += measure_classes(features, labels.split(count), *test, network)
        scores.append(Scores(name, tuple(found)))
    return Floor(clean, bound, (scores[0], scores[1]))


def example_reals(dataset: Dataset, seed: int) -> Images:
    """At most EXAMPLES test images (N, S, S, 3), without augmentation, for the gallery."""
    rows = dataset.rows("test")
    chosen = torch.randperm(len(rows), generator=generator(seed, "pictures"))[:EXAMPLES]
    images: Images = dataset.images[rows[chosen]]
    return images

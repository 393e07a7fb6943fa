"""The real images that models are measured against, and the scores of perfect models.

The floor is the score of real images of other groups, as a perfect model might draw them. The
bound is the score of the same images through the autoencoder: no diffusion model on its latents can
beat it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from advloop.core.errors import UserError
from advloop.core.random import batches, generator
from advloop.data.classes import Classes, count_classes
from advloop.data.dataset import Dataset
from advloop.data.draws import draw_images, draw_rows
from advloop.evaluation.critic import two_sample_test
from advloop.evaluation.features import Features
from advloop.evaluation.metrics import measure, measure_classes
from advloop.evaluation.reals import Reals, nearest_training
from advloop.evaluation.results import AUTOENCODER, REALS
from advloop.evaluation.scores import Scores
from advloop.models.codec import Codec
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

    def images(self, split: str, count: int | None = None) -> Images:
        return draw_images(self.dataset, split, self.augmentation, self.stream(split), count)

    def labels(self, split: str, count: int | None = None) -> torch.Tensor | None:
        """The classes (N,) of what ``images`` draws, or None."""
        if self.classes is None:
            return None
        chosen = draw_rows(self.dataset, split, self.stream(split), count)
        return self.classes.to_labels([self.dataset.classes[row] for row in chosen], self.data)

    def check(self) -> None:
        """Raise UserError unless images and latents belong together."""
        count = len(self.dataset.rows("test"))
        if len(self.test) % count:
            raise UserError(
                f"{self.latents / 'test.pt'}: {len(self.test)} latents of {count} images; remake "
                "it with `dvc repro`"
            )
        if (self.classes is None) == bool(self.dataset.classes):
            raise UserError(
                f"{self.data / 'manifest.csv'}: has {len(set(self.dataset.classes))} classes, but "
                f"the latents have {count_classes(self.classes)}; remake both with `dvc repro`"
            )


def make_reals(sources: Sources) -> Reals:
    """The evaluation-only reals; UserError if images and latents do not belong together."""
    sources.check()
    rows = sources.dataset.rows("test")
    latents = sources.test.unflatten(0, (-1, len(rows)))
    return Reals(
        features={name: sources.features(sources.images(name)) for name in ("tune", "test")},
        latents=latents,
        groups=[sources.dataset.groups[row] for row in rows],
        nearest=nearest_training(
            latents[0].to(sources.device), sources.train, sources.params.batch_size
        ),
        labels=sources.labels("test"),
    )


def measure_reals(
    sources: Sources, reals: Reals, progress: Callable[[Iterable[range]], Iterable[range]]
) -> tuple[Scores, Scores]:
    """The scores of the floor and of the bound."""
    params, features = sources.params, sources.features
    wanted = params.num_samples * params.num_seeds
    images = sources.images("train", wanted)
    rebuilt = np.concatenate(
        [
            sources.codec.decode(sources.codec.encode(images[part.start : part.stop]))
            for part in progress(batches(len(images), params.batch_size))
        ]
    )

    def parts(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values.tensor_split(params.num_seeds)

    labels = sources.labels("train", wanted)
    scores = {}
    for name, pictures in ((REALS, images), (AUTOENCODER, rebuilt)):
        measured = parts(features(pictures))
        scores[name] = measure(measured, reals.features, features.name)
        if labels is not None and reals.labels is not None:
            test = reals.features["test"], reals.labels
            scores[name] += measure_classes(measured, parts(labels), *test, features.name)
    others, groups = _training_shares(sources, wanted)
    scores[REALS] += two_sample_test(
        reals.latents, reals.groups, others, params, sources.seed, sources.device, groups
    )
    return Scores(REALS, tuple(scores[REALS])), Scores(AUTOENCODER, tuple(scores[AUTOENCODER]))


def _training_shares(sources: Sources, wanted: int) -> tuple[list[torch.Tensor], list[list[str]]]:
    """For each sampling seed, a set of training latents (M, C, H, W), and their groups (M,)."""
    train, dataset = sources.train, sources.dataset
    chosen = torch.randperm(len(train), generator=sources.stream("critic"))[:wanted]
    shares = chosen.tensor_split(sources.params.num_seeds)
    groups = [dataset.groups[row] for row in dataset.rows("train")]
    return (
        [train[share] for share in shares],
        [[groups[row % len(groups)] for row in share] for share in shares],
    )


def example_reals(dataset: Dataset, seed: int) -> Images:
    """At most EXAMPLES test images (N, S, S, 3), without augmentation, for the gallery."""
    rows = dataset.rows("test")
    chosen = torch.randperm(len(rows), generator=generator(seed, "pictures"))[:EXAMPLES]
    images: Images = dataset.images[rows[chosen]]
    return images

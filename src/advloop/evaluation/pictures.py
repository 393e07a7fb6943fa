"""The gallery of a model: samples, their nearest training images, extremes of viability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from advloop.data.pictures import image_grid, save_grid, save_png
from advloop.evaluation import gallery
from advloop.evaluation.gallery import Facts, Neighbour, Viability, save_facts
from advloop.evaluation.model import Samples
from advloop.models.codec import Codec

Images = npt.NDArray[np.uint8]
EXAMPLES = 8  # in each row of a picture
GRID = 16  # samples on the page


def save_samples(folder: Path, images: Images) -> None:
    """The model's strip in samples.png, and its grid on the page. images: (N, S, S, 3)."""
    save_png(folder / gallery.STRIP, image_grid(images[:EXAMPLES], columns=EXAMPLES))
    save_grid(folder / gallery.SAMPLES, images[:GRID], columns=4)


def save_gallery(
    folder: Path,
    samples: Samples,
    train: torch.Tensor,
    files: Sequence[str],
    codec: Codec,
    scale: float,
) -> None:
    """All pictures of a model, and their facts. train, files, scale: as in ``nearest_pairs``."""
    save_samples(folder, samples.drawn.images)
    pairs, near = nearest_pairs(samples, train, files, codec, scale)
    save_grid(folder / gallery.NEIGHBOURS, pairs, columns=len(near))
    judged = None
    if samples.viability is not None:
        extremes, judged = extreme_samples(samples.drawn.images, samples.viability)
        save_grid(folder / gallery.VIABILITY, extremes, columns=len(judged.most))
    save_facts(folder, Facts(near, judged))


def nearest_pairs(
    samples: Samples, train: torch.Tensor, files: Sequence[str], codec: Codec, scale: float
) -> tuple[Images, list[Neighbour]]:
    """The samples nearest to a training latent, so that copies are among them.

    train: latents (V * F, C, H, W) of F ``files``, variant by variant. scale: the distance that
    counts as 1. Returns images (2 k, S, S, 3), k at most EXAMPLES: the samples, nearest first, then
    their training latents, decoded; and the k files and distances.
    """
    distances, rows = samples.distances.cpu(), samples.neighbours.cpu()
    order = distances.argsort(stable=True)[:EXAMPLES]
    beside = codec.decode(train[rows[order]])
    pairs = [
        Neighbour(files[int(rows[k]) % len(files)], round(float(distances[k]) / scale, 4))
        for k in order
    ]
    return np.concatenate([samples.drawn.images[order.numpy()], beside]), pairs


def extreme_samples(images: Images, viability: torch.Tensor) -> tuple[Images, Viability]:
    """The most and the least viable samples.

    images: (N, S, S, 3); viability: (N,) in (0, 1). Returns images (2 k, S, S, 3), k at most
    EXAMPLES and N / 2: the most viable, best first, then the least viable, worst first; and their
    viability.
    """
    scores = viability.cpu()
    order = scores.argsort(descending=True, stable=True)
    count = max(1, min(EXAMPLES, len(order) // 2))
    most, least = order[:count], order.flip(0)[:count]
    values = [[round(float(scores[k]), 4) for k in side] for side in (most, least)]
    return images[torch.cat([most, least]).numpy()], Viability(*values)

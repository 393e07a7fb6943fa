"""Which of a model's samples the report shows, and beside what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from advloop.autoencoder import Codec
from advloop.core.runtime import batches
from advloop.discriminator import Discriminator
from advloop.evaluation.neighbours import nearest_rows
from advloop.shown import Neighbour, Viability

Images = npt.NDArray[np.uint8]
SHOWN = 8  # of each kind


def nearest_pairs(
    latents: torch.Tensor,
    images: Images,
    train: torch.Tensor,
    files: Sequence[str],
    codec: Codec,
    scale: float,
    batch_size: int,
) -> tuple[Images, list[Neighbour]]:
    """The samples that lie nearest to a training latent: where there are copies, these are.

    latents (N, C, H, W) and images (N, S, S, 3): the samples; train: (V * F, C, H, W), variant
    by variant of the F ``files``. Returns images (2 k, S, S, 3), k at most SHOWN: the samples,
    nearest first, then as many training latents, decoded; and what they are. scale: the
    distance that counts as 1.
    """
    distances, rows = (found.cpu() for found in nearest_rows(latents, train, batch_size))
    order = distances.argsort(stable=True)[:SHOWN]
    beside = codec.decode(train[rows[order]])
    pairs = [
        Neighbour(files[int(rows[k]) % len(files)], round(float(distances[k]) / scale, 4))
        for k in order
    ]
    return np.concatenate([images[order.numpy()], beside]), pairs


def judged_samples(
    latents: torch.Tensor,
    images: Images,
    discriminator: Discriminator,
    batch_size: int,
    labels: torch.Tensor | None = None,
) -> tuple[Images, Viability]:
    """The samples that the discriminator takes most and least for real.

    Returns images (2 k, S, S, 3), k at most SHOWN and half the samples: the most viable, best
    first, then the least viable, worst first; and their sigmoid(D), in (0, 1). labels: (N,) the
    classes of the samples, for a discriminator that is told of them.
    """
    if labels is not None:
        labels = labels.to(latents.device)
    with torch.no_grad():
        parts = [
            discriminator(
                latents[part.start : part.stop],
                labels=None if labels is None else labels[part.start : part.stop],
            )
            for part in batches(len(latents), batch_size)
        ]
    scores = torch.cat(parts).sigmoid().cpu()
    order = scores.argsort(descending=True, stable=True)
    count = max(1, min(SHOWN, len(order) // 2))
    most, least = order[:count], order.flip(0)[:count]
    values = [[round(float(scores[k]), 4) for k in side] for side in (most, least)]
    return images[torch.cat([most, least]).numpy()], Viability(*values)

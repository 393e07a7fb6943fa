"""Judge a diffusion model on evaluation-only reals."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch

from advloop.autoencoder import Codec
from advloop.criterion import Criterion, held_out
from advloop.features import NETWORK, image_features, load_network
from advloop.intervals import mean_and_interval
from advloop.metrics import measure
from advloop.neighbours import nearest_distances
from advloop.params.evaluation import EvaluateParams
from advloop.runtime import autocast, batches, eval_mode
from advloop.sampling import noise_for, sample_ddim
from advloop.unet import Denoiser

Images = npt.NDArray[np.uint8]


def draw_samples(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    params: EvaluateParams,
    seed: int,
    round_index: int,
) -> tuple[torch.Tensor, Images]:
    """DDIM samples, (N, C, H, W) and decoded, whose noise is the same for every model.

    Keyed by (seed, "evaluate", round_index, k): noise that no discriminator has seen.
    """
    drawn, images = [], []
    for part in batches(params.num_samples, params.batch_size):
        shape = denoiser.latent_shape
        noise = noise_for(part, shape, seed, "evaluate", round_index).to(criterion.where)
        with eval_mode(denoiser), autocast(criterion.precision, criterion.where):
            latents = sample_ddim(
                denoiser,
                noise,
                criterion.alphas_cumprod,
                criterion.diffusion.prediction_type,
                params.num_inference_steps,
            )
        drawn.append(latents.float())
        images.append(codec.decode(drawn[-1]))  # in fp32, as the floor is
    return torch.cat(drawn), np.concatenate(images)


def evaluate_model(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    train_latents: torch.Tensor,
    test_latents: torch.Tensor,
    real_features: torch.Tensor,
    params: EvaluateParams,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> tuple[dict[str, float], Images]:
    """Held-out metrics of one model, and the images of its first sampling seed.

    test_latents: (N, C, H, W) and real_features: (N, D), both of evaluation-only reals;
    train_latents: (M, C, H, W) with augmentation. memorisation_ratio: the median distance of
    samples to the nearest training latent, over that of the evaluation-only reals; far
    below 1, samples copy training images.
    """
    loss = held_out(criterion, denoiser, test_latents, seed, params.batch_size)["noise_loss"]
    network = load_network(criterion.where)
    unseen = nearest_distances(
        test_latents.to(criterion.where), train_latents, params.batch_size
    ).median()
    features: list[torch.Tensor] = []
    ratios: list[float] = []
    first: Images | None = None
    for index in progress(range(params.num_seeds)):
        latents, images = draw_samples(denoiser, criterion, codec, params, seed, index)
        features.append(image_features(network, images, params.feature_size, criterion.where))
        nearest = nearest_distances(latents, train_latents, params.batch_size)
        ratios.append(float(nearest.median() / unseen))
        first = images if first is None else first
    assert first is not None
    ratio, interval = mean_and_interval(ratios)
    return {
        "test_noise_loss": loss,
        **measure(features, real_features, NETWORK),
        "memorisation_ratio": ratio,
        "memorisation_ratio_ci95": interval,
    }, first

"""Judge a diffusion model on evaluation-only reals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch

from advloop.autoencoder import Codec
from advloop.criterion import Criterion, held_out
from advloop.features import image_features, load_network
from advloop.kid import kernel_distance
from advloop.params.evaluation import EvaluateParams
from advloop.runtime import autocast, batches, eval_mode
from advloop.sampling import noise_for, sample_ddim
from advloop.unet import Denoiser

Images = npt.NDArray[np.uint8]

# two-sided 95 % quantiles of Student's t by degrees of freedom
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def student_t(freedom: int) -> float:
    """Two-sided 95 % quantile; beyond the table by Abramowitz & Stegun 1964, Eq. 26.7.5."""
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return STUDENT_T.get(freedom, z + first + second + third)


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t) over independent values."""
    spread = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), student_t(len(values) - 1) * spread


def draw_samples(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    params: EvaluateParams,
    seed: int,
    round_index: int,
) -> Images:
    """Images of DDIM samples whose noise is the same for every model: paired comparisons.

    Keyed by (seed, "evaluate", round_index, k): noise that no discriminator has seen.
    """
    images = []
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
        images.append(codec.decode(latents.float()))  # in fp32, as the floor is
    return np.concatenate(images)


def evaluate_model(
    denoiser: Denoiser,
    criterion: Criterion,
    codec: Codec,
    test_latents: torch.Tensor,
    real_features: torch.Tensor,
    params: EvaluateParams,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> tuple[dict[str, float], Images]:
    """Held-out metrics of one model, and the images of its first sampling seed.

    test_latents: (N, C, H, W) and real_features: (N, D), both of evaluation-only reals.
    """
    loss = held_out(criterion, denoiser, test_latents, seed, params.batch_size)["noise_loss"]
    network = load_network(criterion.where)
    distances: list[float] = []
    first: Images | None = None
    for index in progress(range(params.num_seeds)):
        images = draw_samples(denoiser, criterion, codec, params, seed, index)
        features = image_features(network, images, params.feature_size, criterion.where)
        distances.append(kernel_distance(features, real_features))
        first = images if first is None else first
    assert first is not None
    mean, interval = mean_and_interval(distances)
    return {"test_noise_loss": loss, "kid_lite0": mean, "kid_lite0_ci95": interval}, first

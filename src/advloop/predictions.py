"""One-step x0 predictions from noised real latents: what an objective shows the discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from advloop.core.ranks import in_turns
from advloop.core.runtime import autocast, batches, generator, shuffled_rows
from advloop.params.diffusion import DiffusionParams
from advloop.params.sampling import GenerateParams
from advloop.sampling import noise_for
from advloop.schedule import (
    add_noise,
    alphas_cumprod_of,
    clear_timesteps,
    predict_x0,
    spread_timesteps,
)


@torch.no_grad()
def predict_latents(
    model: Callable[..., torch.Tensor],
    train: torch.Tensor,
    params: GenerateParams,
    diffusion: DiffusionParams,
    seed: int,
    iteration: int,
    precision: str,
    where: torch.device,
    progress: Callable[[Iterable[range]], Iterable[range]],
    start: int = 0,
    labels: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """Batches (B, C, H, W) float32 of params.num_samples predictions, in scaled units, unclipped.

    train: (M, C, H, W), the diffusion model's own training latents, augmented ones among them.
    Sample k is a row of ``train`` noised to one timestep (DDPM, Eq. 4) and taken back by one
    network call (DDIM, Eq. 12). The timesteps are spread evenly over those with alpha_bar >=
    params.predicted_min_alpha_bar: beyond, one step predicts a blur. Sample k's noise depends
    on (seed, iteration, k) alone. start: the first sample of the batch to begin with. labels:
    classes (M,) of ``train`` and (params.num_samples,) of the samples, each of which is then
    made from a row of its class.
    """
    alphas_cumprod = alphas_cumprod_of(diffusion)
    limit = clear_timesteps(
        alphas_cumprod, params.predicted_min_alpha_bar, "generate.predicted_min_alpha_bar"
    )
    key = ("generate", iteration, "predicted")
    count, shape = params.num_samples, tuple(train.shape[1:])
    if labels is None:
        rows = shuffled_rows(count, len(train), generator(seed, *key))
    else:
        rows = _rows_by_class(*labels, seed, *key)
    timesteps = spread_timesteps(count, limit, generator(seed, *key, "timesteps")).to(where)

    def predict(part: range) -> torch.Tensor:
        chosen = slice(part.start, part.stop)
        t = timesteps[chosen]
        eps = noise_for(part, shape, seed, *key).to(where)
        noisy = add_noise(train[rows[chosen]].to(where), eps, t, alphas_cumprod)
        told = () if labels is None else (labels[1][chosen].to(where),)
        with autocast(precision, where):
            output = model(noisy, t, *told)
        return predict_x0(output.float(), noisy, t, alphas_cumprod, diffusion.prediction_type)

    jobs = progress(batches(count, params.batch_size))
    yield from in_turns((part for part in jobs if part.start >= start), predict)


def _rows_by_class(
    train: torch.Tensor, samples: torch.Tensor, seed: int, *key: int | str
) -> torch.Tensor:
    """For each of the labels ``samples`` (N,) a row of ``train`` (M,) with that label, (N,)."""
    rows = torch.empty_like(samples)
    for label in samples.unique().tolist():
        own, wanted = (train == label).nonzero().squeeze(1), samples == label
        stream = generator(seed, *key, "class", label)
        rows[wanted] = own[shuffled_rows(int(wanted.sum()), len(own), stream)]
    return rows

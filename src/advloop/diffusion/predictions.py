"""One-step x0 predictions of noised real latents: fakes for the discriminator's training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from advloop.core.device import autocast
from advloop.core.distributed import map_across_processes
from advloop.core.random import batches, generator, noise_for, shuffled_rows
from advloop.diffusion.process import Process, midpoint_timesteps
from advloop.params.training import GenerateParams


@torch.no_grad()
def predict_latents(
    model: Callable[..., torch.Tensor],
    train: torch.Tensor,
    params: GenerateParams,
    process: Process,
    seed: int,
    iteration: int,
    precision: str,
    device: torch.device,
    progress: Callable[[Iterable[range]], Iterable[range]],
    start: int = 0,
    labels: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """Batches (B, C, H, W) float32 of params.num_samples predictions, in scaled units, unclipped.

    Sample k is a row of ``train`` noised to one timestep and predicted by one network call. The
    timesteps are evenly spaced over those with alpha_bar >= params.predicted_min_alpha_bar: at
    noisier ones, one step predicts a blur. Sample k's noise depends on (seed, iteration, k) alone.

    train: (M, C, H, W), the diffusion model's own training latents, augmented ones included.
    start: sample to resume from, at the start of a batch. labels: classes (M,) of ``train`` and
    (params.num_samples,) of the samples; a sample is then made from a row of its own class.
    UserError if no timestep has that alpha_bar.
    """
    process, bound = process.to(device), params.predicted_min_alpha_bar
    limit = process.timestep_limit(bound, "generate.predicted_min_alpha_bar")
    key = ("generate", iteration, "predicted")
    count, shape = params.num_samples, tuple(train.shape[1:])
    if labels is None:
        rows = shuffled_rows(count, len(train), generator(seed, *key))
    else:
        rows = _rows_by_class(*labels, seed, *key)
    timesteps = midpoint_timesteps(count, limit, generator(seed, *key, "timesteps")).to(device)

    def predict(part: range) -> torch.Tensor:
        chosen = slice(part.start, part.stop)
        t = timesteps[chosen]
        eps = noise_for(part, shape, seed, *key).to(device)
        noisy = process.add_noise(train[rows[chosen]].to(device), eps, t)
        conditions = () if labels is None else (labels[1][chosen].to(device),)
        with autocast(precision, device):
            output = model(*process.inputs(noisy, t), *conditions)
        return process.predict_x0(output.float(), noisy, t)

    jobs = progress(batches(count, params.batch_size))
    yield from map_across_processes(predict, (part for part in jobs if part.start >= start))


def _rows_by_class(
    train: torch.Tensor, samples: torch.Tensor, seed: int, *key: int | str
) -> torch.Tensor:
    """Row (N,) of ``train`` for each sample: a random one with the sample's label.

    train: labels (M,) of the rows; samples: labels (N,) of the samples.
    """
    rows = torch.empty_like(samples)
    for label in samples.unique().tolist():
        own, wanted = (train == label).nonzero().squeeze(1), samples == label
        stream = generator(seed, *key, "class", label)
        rows[wanted] = own[shuffled_rows(int(wanted.sum()), len(own), stream)]
    return rows

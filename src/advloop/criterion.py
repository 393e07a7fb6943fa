"""From clean latents to the loss of an objective, for training and on held-out latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from advloop.core.ranks import spread
from advloop.core.runtime import autocast, batches, eval_mode, generator
from advloop.objectives.base import Batch, Objective, Terms
from advloop.params.diffusion import DiffusionParams
from advloop.sampling import noise_for
from advloop.schedule import add_noise, alphas_cumprod_of, spread_timesteps


class Noised(NamedTuple):
    """Clean latents and noise (B, C, H, W), timesteps (B,), and labels (B,) if there are any."""

    x0: torch.Tensor
    eps: torch.Tensor
    timesteps: torch.Tensor
    labels: torch.Tensor | None = None


@dataclass
class Criterion:
    """An objective with all that it needs beside the batch.

    weight: of discriminator_loss beside noise_loss. discriminator, and reference (the model
    that the training started from): frozen and in evaluation mode, or None. precision: ``fp32``
    or ``bf16``, for the diffusion networks alone; the loss is computed in float32.
    """

    objective: Objective
    weight: float
    discriminator: nn.Module | None
    diffusion: DiffusionParams
    precision: str
    where: torch.device
    reference: nn.Module | None = None

    def __post_init__(self) -> None:
        self.alphas_cumprod = alphas_cumprod_of(self.diffusion).to(self.where)

    def __call__(
        self,
        model: nn.Module,
        x0: torch.Tensor,
        eps: torch.Tensor,
        timesteps: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        fake: Noised | None = None,
        weight: float | torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Terms]:
        """(loss, terms) of one batch. x0, eps: (B, C, H, W); timesteps: (B,) in [0, T).

        labels: (B,) classes, for networks that are told of them. fake: the same of generated
        latents, for an objective that wants them. weight takes the place of ``self.weight``
        where it is given.
        """
        batch = self._forward(model, Noised(x0, eps, timesteps, labels), weight)
        if fake is not None:
            batch = replace(batch, fake=self._forward(model, Noised(*fake), weight))
        return self.objective(batch)

    def _forward(
        self, model: nn.Module, noised: Noised, weight: float | torch.Tensor | None
    ) -> Batch:
        x0, eps, timesteps, labels = noised
        told = () if labels is None else (labels,)
        noisy = add_noise(x0, eps, timesteps, self.alphas_cumprod)
        reference = None
        with autocast(self.precision, self.where):
            output = spread(model, noisy, timesteps, *told)
            if self.reference is not None:
                with torch.no_grad():
                    reference = spread(self.reference, noisy, timesteps, *told).float()
        return Batch(
            x0=x0,
            eps=eps,
            noisy=noisy,
            timesteps=timesteps,
            output=output.float(),
            alphas_cumprod=self.alphas_cumprod,
            prediction_type=self.diffusion.prediction_type,
            discriminator=self.discriminator,
            weight=self.weight if weight is None else weight,
            reference=reference,
            labels=labels,
        )


def held_out(
    criterion: Criterion,
    model: nn.Module,
    latents: torch.Tensor,
    seed: int,
    batch_size: int,
    fakes: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    fake_labels: torch.Tensor | None = None,
) -> dict[str, float]:
    """Mean loss and terms on ``latents`` (N, C, H, W), with noise that never changes.

    The timesteps are spread evenly over [0, T) and paired with the rows once, so that
    every epoch, and every iteration, is measured on the same problem. fakes: generated
    latents (M, C, H, W), repeated to as many rows, for an objective that wants them. labels
    (N,) and fake_labels (M,): their classes, where they have any.
    """
    count, limit = len(latents), criterion.diffusion.num_train_timesteps

    def timesteps(*key: str) -> torch.Tensor:
        return spread_timesteps(count, limit, generator(seed, "validation", "timesteps", *key))

    def noised(
        source: torch.Tensor,
        classes: torch.Tensor | None,
        chosen: torch.Tensor,
        part: range,
        *key: str,
    ) -> Noised:
        rows = torch.tensor(part) % len(source)
        x0 = source[rows]
        eps = noise_for(part, tuple(x0.shape[1:]), seed, "validation", *key)
        steps = chosen[part.start : part.stop]
        told = None if classes is None else classes[rows].to(criterion.where)
        return Noised(
            x0.to(criterion.where), eps.to(criterion.where), steps.to(criterion.where), told
        )

    real_steps, fake_steps = timesteps(), timesteps("fake")

    sums: dict[str, torch.Tensor] = {}
    with eval_mode(model):
        for part in batches(count, batch_size):
            fake = None
            if fakes is not None:
                fake = noised(fakes, fake_labels, fake_steps, part, "fake")
            loss, terms = criterion(model, *noised(latents, labels, real_steps, part), fake=fake)
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(part)
    return {name: float(total) / count for name, total in sums.items()}

"""From clean latents to the loss of an objective, in training and on held-out latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from advloop.core.device import autocast, eval_mode
from advloop.core.distributed import split_across_processes
from advloop.core.random import batches, generator, noise_for
from advloop.diffusion.batch import Batch, Objective, Part, Rows, Terms, Whole, noise_only
from advloop.diffusion.process import Process, midpoint_timesteps

DROPPED = 0.1  # share of labels, as in the training of DiT


class Noised(NamedTuple):
    """Clean latents, and the noise and timesteps to noise them with."""

    x0: torch.Tensor  # (B, C, H, W)
    eps: torch.Tensor  # (B, C, H, W)
    timesteps: torch.Tensor  # (B,) int in [0, T)
    labels: torch.Tensor | None = None  # (B,) classes; None: unconditional
    part: Part | None = None  # of a measurement; None: of a training


@dataclass
class Criterion:
    """The loss of a batch: noise the latents, predict, and ask the objective."""

    objective: Objective
    weight: float  # of the objective's term relative to noise_loss
    discriminator: nn.Module | None  # frozen, in evaluation mode; None: base model
    process: Process  # which moves to ``device``
    precision: str  # of the diffusion networks: fp32 or bf16; the loss is always float32
    device: torch.device
    reference: nn.Module | None = None  # the starting model, frozen, if the objective needs it
    null_label: int | None = None  # of no class, for a network that has one

    def __post_init__(self) -> None:
        self.process = self.process.to(self.device)

    def __call__(
        self,
        model: nn.Module,
        x0: torch.Tensor,
        eps: torch.Tensor,
        timesteps: torch.Tensor,
        labels: torch.Tensor | None = None,
        part: Part | None = None,
        *,
        fake: Noised | None = None,
        weight: float | torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Terms]:
        """(loss, terms) of one batch on ``device``; loss has a gradient in the model's weights.

        x0, eps, timesteps, labels, part: as in ``Noised``. fake: generated latents, for an
        objective that needs them. weight: overrides ``self.weight``, for this batch.
        """
        weight = self.weight if weight is None else weight
        batch = self._forward(model, Noised(x0, eps, timesteps, labels, part), weight)
        if fake is not None:
            batch = replace(batch, fake=self._forward(model, Noised(*fake), weight))
        return self.objective(batch)

    def _forward(self, model: nn.Module, noised: Noised, weight: float | torch.Tensor) -> Batch:
        x0, eps, timesteps, labels, part = noised
        noisy = self.process.add_noise(x0, eps, timesteps)
        inputs = self.process.inputs(noisy, timesteps)
        conditions = () if labels is None else (self._some_dropped(labels, model.training),)
        reference = None
        with autocast(self.precision, self.device):
            output = split_across_processes(model, *inputs, *conditions)
            if self.reference is not None:
                with torch.no_grad():
                    reference = split_across_processes(self.reference, *inputs, *conditions)
        return Batch(
            x0=x0,
            eps=eps,
            noisy=noisy,
            timesteps=timesteps,
            output=output.float(),
            process=self.process,
            discriminator=self.discriminator,
            weight=weight,
            reference=None if reference is None else reference.float(),
            labels=labels,
            part=part,
        )

    def _some_dropped(self, labels: torch.Tensor, training: bool) -> torch.Tensor:
        """Labels (B,) for the networks: in training, some become that of no class.

        So a network goes on learning to predict without a class, for guidance (Ho & Salimans 2022,
        Algorithm 1). The draws are from the global stream, as dropout's are.
        """
        if self.null_label is None or not training:
            return labels
        dropped = torch.rand(len(labels), device=labels.device) < DROPPED
        return labels.masked_fill(dropped, self.null_label)


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
    """Mean loss and terms over held-out ``latents`` (N, C, H, W), for ``model`` in evaluation mode.

    Noise and timesteps of each row depend on the seed alone, so that every epoch and every round
    is measured on the same problem. Weighted means, too, are over all rows, so that the batch
    size changes nothing but rounding. fakes: generated latents (M, C, H, W), repeated or cut to N
    rows, for an objective that needs them. labels (N,), fake_labels (M,): classes, if conditional.
    """
    count = len(latents)
    real, fake = _noised_rows(criterion, latents, labels, count, seed, batch_size), None
    if fakes is not None:
        fake = _noised_rows(criterion, fakes, fake_labels, count, seed, batch_size, "fake")
    sums: dict[str, torch.Tensor] = {}
    with eval_mode(model):
        for rows in batches(count, batch_size):
            loss, terms = criterion(model, *real(rows), fake=fake(rows) if fake else None)
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(rows)
    return {name: float(total) / count for name, total in sums.items()}


def _noised_rows(
    criterion: Criterion,
    latents: torch.Tensor,
    labels: torch.Tensor | None,
    count: int,
    seed: int,
    batch_size: int,
    *key: str,
) -> Callable[[range], Noised]:
    """Rows of [0, count) -> that part of ``latents``, repeated as needed, with fixed noise."""
    limit, device = criterion.process.num_train_timesteps, criterion.device
    timesteps = midpoint_timesteps(count, limit, generator(seed, "validation", "timesteps", *key))

    def clean(rows: range) -> Rows:
        chosen = torch.tensor(rows) % len(latents)
        return Rows(
            latents[chosen].to(device),
            timesteps[rows.start : rows.stop].to(device),
            None if labels is None else labels[chosen].to(device),
        )

    whole = Whole(count, batch_size, clean)

    def noised(rows: range) -> Noised:
        x0, own_timesteps, own_labels = clean(rows)
        before = (rows.start - 1) % count
        eps = noise_for([before, *rows], tuple(x0.shape[1:]), seed, "validation", *key).to(device)
        timesteps_before = timesteps.roll(1)[rows.start : rows.stop].to(device)
        part = Part(whole, eps[:-1], timesteps_before)
        return Noised(x0, eps[1:], own_timesteps, own_labels, part)

    return noised


def noise_criterion(process: Process, precision: str, device: torch.device) -> Criterion:
    """The noise loss alone, with no discriminator and no reference."""
    return Criterion(noise_only, 0.0, None, process, precision, device)

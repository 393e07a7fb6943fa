"""One step of a discriminator that compares pairs: in its own training, and beside a generator.

The penalties are finite differences of two logits (see ``r1_penalty``) and not second derivatives:
they share one forward and one backward pass with the loss, need of every layer no more than a first
derivative, and a gradient summed over processes is right. The step is computed in float32, since
bfloat16 would round a small difference away.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import nn

from advloop.core.device import autocast
from advloop.core.distributed import split_across_processes, sum_gradients
from advloop.core.random import batches
from advloop.data.latents import Rows
from advloop.models.discriminator import Discriminator, squared_slope
from advloop.models.pairing import midpoint, pairing_loss
from advloop.models.statistics import BATCH, statistics_of
from advloop.training.batches import Side
from advloop.training.discriminator_data import DiscData

SHARED = ("features.", "time_bias.")  # the parameters of ``Discriminator.pool``


class PairSettings(Protocol):
    """Weights of the penalties, and the step of their finite difference in latent units."""

    @property
    def r1_weight(self) -> float: ...

    @property
    def r2_weight(self) -> float: ...

    @property
    def r1_sigma(self) -> float: ...


class Pairs(NamedTuple):
    """Row k of ``real`` and of ``fake`` (B, C, H, W) are of class ``labels[k]``."""

    real: torch.Tensor
    fake: torch.Tensor
    labels: torch.Tensor | None


class Reals:
    """Latents of ``side`` to set against fakes: random ones, also of given classes."""

    def __init__(self, side: Side, device: torch.device) -> None:
        self._side, self._device = side, device
        labels = torch.zeros(len(side), dtype=torch.long) if side.labels is None else side.labels
        self._by_class = labels.argsort(stable=True)
        self._sizes = labels.bincount()
        self._starts = self._sizes.cumsum(0) - self._sizes

    def draw(self, count: int, stream: torch.Generator) -> Side:
        """``count`` of them, each as likely as any other."""
        return self._rows(torch.randint(len(self._side), (count,), generator=stream))

    def draw_like(self, labels: torch.Tensor | None, count: int, stream: torch.Generator) -> Side:
        """One of each of the classes ``labels`` (count,), which it has; None: as ``draw``."""
        if labels is None:
            return self.draw(count, stream)
        own = labels.cpu()
        sizes = self._sizes[own]
        place = (torch.rand(count, generator=stream) * sizes).long().minimum(sizes - 1)
        return self._rows(self._by_class[self._starts[own] + place])

    def _rows(self, rows: torch.Tensor) -> Side:
        labels = self._side.labels
        return Side(
            self._side.latents[rows].to(self._device),
            None if labels is None else labels[rows].to(self._device),
        )


class PairStep(NamedTuple):
    """Of one step, detached, on the device."""

    real: torch.Tensor  # logits (B,) of the reals, before the step
    fake: torch.Tensor  # logits (B,) of the fakes
    penalty: torch.Tensor  # R1 and R2 with their weights, a scalar
    grad_norm: torch.Tensor  # of the loss with the penalties in all weights, a scalar


def paired_rows(data: DiscData, stream: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(reals, fakes): rows (N / 2,) of ``data``, each once, paired at random within a class.

    data: reals first, then as many fakes of the same classes, as ``make_sides`` gives them.
    """
    count = len(data) // 2
    real, fake = (torch.randperm(count, generator=stream) for _ in range(2))
    if data.labels is not None:
        labels = data.labels[:count].cpu()
        paired = torch.empty_like(fake)
        paired[labels[real].argsort(stable=True)] = fake[labels[fake].argsort(stable=True)]
        fake = paired
    device = data.latents.device
    return real.to(device), count + fake.to(device)


def step_on_pairs(
    model: Discriminator,
    optimizer: torch.optim.Optimizer,
    pairs: Pairs,
    settings: PairSettings,
    noise: torch.Generator,
) -> PairStep:
    """Minimise pairing loss + r1_weight |grad D(real)|^2 + r2_weight |grad D(fake)|^2.

    As R3GAN (Huang et al. 2024); each weight is half of the paper's gamma. noise: of the finite
    differences; drawn only if a penalty has a weight. Dropout must be off, since two masks would
    differ by more than the penalties' step does.
    """
    weights = (settings.r1_weight, settings.r2_weight)
    latents = torch.cat([pairs.real, pairs.fake])
    copies = 1
    if any(weights):
        eps = torch.randn(latents.shape, generator=noise).to(latents.device)
        latents = torch.cat([latents, latents + settings.r1_sigma * eps])
        copies = 2
    labels = None if pairs.labels is None else pairs.labels.repeat(2 * copies)
    # 1. Judge the pairs, and the same latents a small step away.
    logits = logits_of(model, latents, None, labels)
    real, fake, *moved = logits.chunk(2 * copies)
    loss = pairing_loss(real, fake).mean()
    # 2. Keep the discriminator flat at reals and fakes.
    penalty = loss.new_zeros(())
    for weight, here, there in zip(weights, (real, fake), moved, strict=False):
        penalty = penalty + weight * squared_slope(here, there, settings.r1_sigma).mean()
    # 3. Step.
    optimizer.zero_grad(set_to_none=True)
    (loss + penalty).backward()
    sum_shared_gradients(model)
    norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    optimizer.step()
    return PairStep(real.detach(), fake.detach(), penalty.detach(), norm)


@torch.no_grad()
def centre(model: Discriminator, real: torch.Tensor, fake: torch.Tensor) -> None:
    """Set D's zero between its logits of reals (N,) and of fakes (M,), by the bias of the head.

    The loss of pairs leaves it anywhere; accuracy and viability_score read a logit above 0 as real.
    """
    model.head.bias.sub_(midpoint(real, fake))


def logits_of(
    model: Discriminator,
    latents: torch.Tensor,
    timesteps: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    *,
    precision: str = "fp32",
) -> torch.Tensor:
    """``model(latents, …)``, with its convolutions split across processes and in ``precision``.

    Every process computes the rest for all rows and in float32, so that dropout is the same as
    in a single process.
    """
    conditions = () if timesteps is None else (timesteps,)
    with autocast(precision, latents.device):
        pooled = split_across_processes(model.pool, latents, *conditions)
    return model.classify(pooled.float(), labels)


def sum_shared_gradients(model: Discriminator) -> None:
    """Complete the gradients of what ``logits_of`` splits across processes."""
    sum_gradients(p for name, p in model.named_parameters() if name.startswith(SHARED))


def measure_statistics(model: Discriminator, latents: Rows) -> None:
    """Standardise the statistics, if ``model`` sees any, by those of ``latents`` (N, C, H, W)."""
    if model.statistics is None:
        return
    parts = batches(len(latents), BATCH)
    device = latents.device
    found = [statistics_of(latents[part.start : part.stop].to(device)) for part in parts]
    model.statistics.measure(torch.cat(found))

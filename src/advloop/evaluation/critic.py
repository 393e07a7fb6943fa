"""Fresh critics between reals and samples, as latents or images: a classifier two-sample test.

If no classifier trained on some rows tells the others apart, the two sets may come from one
distribution (Lopez-Paz & Oquab 2017). A generator may have learnt to fool the discriminator that
it was trained against; these critics are new, and judge only rows that they have not seen: each
fold is judged by a critic of the other folds, and a group belongs to one fold.

A critic sees statistics of a latent, not its cells. From a few hundred rows, a convolutional
discriminator learns little: between 248 validation reals of 17 maps and samples of the demo's base
model, its held-out AUC was 0.62; these critics reach 0.96, and 0.91 between two large maps of
different looks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.device import eval_mode
from advloop.core.errors import UserError
from advloop.core.random import batches, generator, seeded
from advloop.evaluation.kernels import Measured, rows_without
from advloop.evaluation.scores import Metric, Score, score_all
from advloop.params.evaluation import EvaluateParams

ACCURACY = Metric("critic_accuracy", "latent critics, accuracy", better="lower")
AUC = Metric("critic_auc", "latent critics, AUC", better="lower")
GAP = Metric("critic_gap", "latent critics", better="lower", listed="table")
IMAGE_AUC = Metric("image_critic_auc", "image critics, AUC", better="lower")
IMAGE_GAP = Metric("image_critic_gap", "image critics", better="lower", listed="table")
ACCURACY_ERROR = Metric(
    "critic_accuracy_null_se", "latent critics, accuracy, null error", listed="file"
)
AUC_ERROR = Metric("critic_auc_null_se", "latent critics, AUC, null error", listed="file")

FOLDS = 5
THRESHOLDS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # for latents with mean square 1
COARSEST = 8  # cells a side below which a latent is not halved again
BATCH = 256  # latents at once; bounds memory, changes no value
WEIGHT_DECAY = 0.1
OUTLIER = 5.0  # standard deviations; a statistic beyond them counts no more


def _products(x: torch.Tensor) -> torch.Tensor:
    """Mean products of every two channels of x (B, C, H, W), (B, C (C + 1) / 2)."""
    cells = x.flatten(2)
    first, second = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return ((cells @ cells.mT) / cells.shape[2])[:, first, second]


def _level(x: torch.Tensor) -> list[torch.Tensor]:
    """Statistics at one resolution of x (B, C, H, W): marginals, neighbours, channel products."""
    maps = [x, *(torch.sigmoid(4 * (x - t)) for t in THRESHOLDS)]  # a soft histogram
    maps += [x.diff(dim=side).abs() for side in (2, 3)]
    return [*(values.mean((2, 3)) for values in maps), _products(x), _products(x.abs())]


@torch.no_grad()
def statistics(latents: torch.Tensor, device: torch.device) -> torch.Tensor:
    """What a critic sees of latents (N, C, H, W), H and W at least 2: (N, D) on ``device``.

    The means of the four quadrants, then ``_level`` at each resolution from the full one down to
    COARSEST cells a side: one for 8×8 (16 channels: D = 496), three for 32×32 (D = 1360).
    """
    result = []
    for part in batches(len(latents), BATCH):
        x = latents[part.start : part.stop].to(device)
        found = [F.adaptive_avg_pool2d(x, 2).flatten(1), *_level(x)]
        while min(x.shape[2:]) >= 2 * COARSEST:
            x = F.avg_pool2d(x, 2)
            found += _level(x)
        result.append(torch.cat(found, 1))
    return torch.cat(result)


class Critic(nn.Module):
    """Standardised statistics (B, D) -> logits (B,); positive means real."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, real: torch.Tensor, fake: torch.Tensor, widths: list[int]) -> None:
        """real (R, D), fake (M, D): the training rows, whose mean and scale standardise all."""
        super().__init__()
        self.register_buffer("shift", (real.mean(0) + fake.mean(0)) / 2)  # each class weighs half
        first, second = ((x - self.shift).square().mean(0) for x in (real, fake))
        self.register_buffer("scale", ((first + second) / 2).sqrt().clamp_min(1e-6))
        layers: list[nn.Module] = []
        inside = real.shape[1]
        for outside in widths:
            layers += [nn.Linear(inside, outside), nn.GELU()]
            inside = outside
        self.head = nn.Sequential(*layers, nn.Linear(inside, 1)).to(real.device)

    def standardise(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.shift) / self.scale).clamp(-OUTLIER, OUTLIER)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.standardise(x)).squeeze(1)
        return logits


def fold_rows(groups: Sequence[Hashable], folds: int, stream: torch.Generator) -> torch.Tensor:
    """The fold of each row, (N,): whole groups, the largest first, each to the smallest fold.

    Groups of equal size come in random order. With at least as many groups as folds, none is empty.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    members = list(rows.values())
    order = torch.randperm(len(members), generator=stream).tolist()
    result = torch.empty(len(groups), dtype=torch.int64)
    sizes = [0] * folds
    for index in sorted(order, key=lambda i: -len(members[i])):
        fold = sizes.index(min(sizes))
        result[members[index]] = fold
        sizes[fold] += len(members[index])
    return result


def train_critic(
    real: torch.Tensor, fake: torch.Tensor, params: EvaluateParams, seed: int, *key: int | str
) -> Critic:
    """A critic of real (V, N, D) against fake (M, D), trained for ``critic_epochs`` full batches.

    Each epoch uses a random variant of each real. Each class weighs half, so that a critic that
    learns nothing answers 1/2.
    """
    variants, count = real.shape[:2]
    device = fake.device
    labels = torch.cat([torch.ones(count), torch.zeros(len(fake))]).to(device)
    weights = torch.where(labels > 0, 0.5 / count, 0.5 / len(fake))
    stream = generator(seed, *key, "variants")
    with seeded(seed, *key, "initialisation"):
        model = Critic(real.flatten(0, 1), fake, params.critic_widths)
    real, fake = model.standardise(real), model.standardise(fake)  # once, not in each epoch
    optimizer = torch.optim.AdamW(
        model.parameters(), params.critic_learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.critic_epochs)
    for _ in range(params.critic_epochs):
        variant = torch.randint(variants, (count,), generator=stream).to(device)
        rows = torch.cat([real[variant, torch.arange(count, device=device)], fake])
        logits = model.head(rows).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def area_under_curve(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Chance that a real's logit (N,) exceeds a fake's (M,), ties half (Mann & Whitney 1947)."""
    fakes = fake.sort().values.contiguous()
    below, up_to = (torch.searchsorted(fakes, real.contiguous(), side=s) for s in ("left", "right"))
    return float((below + up_to).double().mean() / (2 * len(fake)))


@dataclass(frozen=True)
class Judged:
    """What the critics of all folds say of held-out rows.

    gap: mean sigmoid(logit) of the reals minus that of the fakes. auc: within each fold, since
    logits of different critics do not compare. accuracy: the mean of both classes' accuracies.
    About 0, 1/2 and 1/2 if the sets do not differ; slightly less, because whatever a fold has by
    chance, its critic has seen less of.
    """

    gap: Measured
    auc: float
    accuracy: float


def fresh_critic(
    real: torch.Tensor,
    groups: Sequence[Hashable],
    fake: torch.Tensor,
    fake_groups: Sequence[Hashable],
    params: EvaluateParams,
    seed: int,
    *key: int | str,
) -> Judged:
    """What one critic per fold says of the rows that it has not seen.

    real: (V, N, D), statistics of N reals of ``groups`` (N,) in V variants; fake: (M, D), of
    ``fake_groups`` (M,). A held-out real is judged in one random variant, so that it comes from
    the augmented set. ``key`` belongs to this test alone. UserError if a set is a single group.
    """
    folds = min(FOLDS, len(set(groups)), len(set(fake_groups)))
    if folds < 2:
        raise UserError(
            "evaluate: a critic judges groups that it has not seen, but one set is a single group; "
            "raise data.test_fraction, or add groups of images"
        )
    stream = generator(seed, *key, "folds")
    real_fold = fold_rows(groups, folds, stream).to(real.device)
    fake_fold = fold_rows(fake_groups, folds, stream).to(fake.device)
    count = real.shape[1]
    variant = torch.randint(len(real), (count,), generator=generator(seed, "critic", "judged"))
    judged = real[variant.to(real.device), torch.arange(count, device=real.device)]
    on_real, on_fake = judged.new_empty(count), fake.new_empty(len(fake))
    ordered, pairs = 0.0, 0
    for fold in range(folds):
        ours, theirs = real_fold == fold, fake_fold == fold
        model = train_critic(
            real[:, real_fold != fold], fake[fake_fold != fold], params, seed, *key, fold
        )
        with eval_mode(model):
            on_real[ours], on_fake[theirs] = model(judged[ours]), model(fake[theirs])
        weight = int(ours.sum()) * int(theirs.sum())
        ordered += weight * area_under_curve(on_real[ours], on_fake[theirs])
        pairs += weight
    if not bool(torch.isfinite(torch.cat([on_real, on_fake])).all()):
        raise UserError(
            "evaluate: a critic's logits are not finite; lower "
            f"evaluate.critic_learning_rate={params.critic_learning_rate}"
        )
    hits = (on_real > 0).double().mean() + (on_fake <= 0).double().mean()
    reals, fakes = on_real.double().sigmoid().cpu(), float(on_fake.double().sigmoid().mean())
    without = (float(reals[kept].mean()) - fakes for kept in rows_without(groups))
    gap = Measured(float(reals.mean()) - fakes, tuple(without))
    return Judged(gap, ordered / pairs, float(hits / 2))


def null_errors(num_real: int, num_fake: int) -> list[Score]:
    """Standard errors of one test's accuracy and AUC if both sets come from one distribution.

    For N and M independent rows judged by one critic. accuracy: binomial, at most
    sqrt(1/N + 1/M) / 4, reached if half of the rows are called real. AUC, over F equal folds:
    sqrt((N + M + F) / (12 N M)) (F = 1: Mann & Whitney 1947).

    Real tests vary more: on the demo's latents, accuracies of folds that share training rows
    spread 0.8 to 1.4 times as far between halves of one model's samples, and 1.8 times between
    maps and other maps, whose groups are alike. So compare with the floor.
    """
    n, m = num_real, num_fake
    accuracy, auc = (1 / n + 1 / m) ** 0.5 / 4, ((n + m + FOLDS) / (12 * n * m)) ** 0.5
    return score_all({ACCURACY_ERROR: [accuracy], AUC_ERROR: [auc]})

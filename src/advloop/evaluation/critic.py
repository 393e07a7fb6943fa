"""Fresh critics between real latents and samples: a classifier two-sample test.

Lopez-Paz & Oquab 2017: where no classifier that is trained on some rows tells the others
apart, the two sets may come from one distribution. A discriminator that trained the
generator can be fooled by it; these critics are new, and judge only rows that they have
not seen: each fold by a critic of the other folds, whole groups to a fold.

A critic sees a row's statistics, not its cells. From a few hundred rows a convolutional
discriminator learns little: 248 validation reals of 17 maps against samples of the demo's
base model, held-out AUC 0.62; this one 0.96, and 0.91 with two large maps of another look.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.errors import UserError
from advloop.core.runtime import batches, eval_mode, generator, seeded
from advloop.intervals import Seeds
from advloop.params.evaluation import EvaluateParams

FOLDS = 5
THRESHOLDS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # of latents whose mean square is 1
COARSEST = 8  # cells a side below which a row is halved no more
BATCH = 256  # rows whose statistics are made at once; bounds memory, changes nothing
WEIGHT_DECAY = 0.1
OUTLIER = 5.0  # standard deviations; beyond it one statistic does not count for more


def _products(x: torch.Tensor) -> torch.Tensor:
    """Mean products of every two channels of x (B, C, H, W), (B, C (C + 1) / 2)."""
    cells = x.flatten(2)
    first, second = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return ((cells @ cells.mT) / cells.shape[2])[:, first, second]


def _level(x: torch.Tensor) -> list[torch.Tensor]:
    """What is averaged over the cells of x (B, C, H, W): marginals, channels, neighbours."""
    maps = [x, *(torch.sigmoid(4 * (x - t)) for t in THRESHOLDS)]  # a soft histogram
    maps += [x.diff(dim=side).abs() for side in (2, 3)]
    return [*(values.mean((2, 3)) for values in maps), _products(x), _products(x.abs())]


@torch.no_grad()
def statistics(latents: torch.Tensor, where: torch.device) -> torch.Tensor:
    """What a critic sees of latents (N, C, H, W), H and W at least 2: (N, D) on ``where``.

    The means of the four quadrants, and ``_level`` of the row and of its halvings down to
    COARSEST cells a side: one at 8×8 (16 channels: D = 496), three at 32×32 (D = 1360).
    """
    result = []
    for part in batches(len(latents), BATCH):
        x = latents[part.start : part.stop].to(where)
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
        """real (R, D) and fake (M, D), what it will be trained on, set the standard."""
        super().__init__()
        self.register_buffer("shift", (real.mean(0) + fake.mean(0)) / 2)  # a class weighs half
        first, second = ((x - self.shift).square().mean(0) for x in (real, fake))
        self.register_buffer("scale", ((first + second) / 2).sqrt().clamp_min(1e-6))
        layers: list[nn.Module] = []
        inside = real.shape[1]
        for outside in widths:
            layers += [nn.Linear(inside, outside), nn.GELU()]
            inside = outside
        self.head = nn.Sequential(*layers, nn.Linear(inside, 1)).to(real.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = ((x - self.shift) / self.scale).clamp(-OUTLIER, OUTLIER)
        logits: torch.Tensor = self.head(x).squeeze(1)
        return logits


def fold_rows(groups: Sequence[Hashable], folds: int, stream: torch.Generator) -> torch.Tensor:
    """The fold (N,) of every row: whole groups, the largest first, each to the smallest fold.

    Groups of one size come in random order. No fold is empty where there are as many groups.
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
    """A new critic of real (V, N, D) against fake (M, D), in ``critic_epochs`` full batches.

    Either class weighs half, so that a critic that learns nothing says 1/2; each epoch shows
    one variant of each real.
    """
    variants, count = real.shape[:2]
    where = fake.device
    labels = torch.cat([torch.ones(count), torch.zeros(len(fake))]).to(where)
    weights = torch.where(labels > 0, 0.5 / count, 0.5 / len(fake))
    stream = generator(seed, *key, "variants")
    with seeded(seed, *key, "initialisation"):
        model = Critic(real.flatten(0, 1), fake, params.critic_widths)
    optimizer = torch.optim.AdamW(
        model.parameters(), params.critic_learning_rate, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.critic_epochs)
    for _ in range(params.critic_epochs):
        shown = torch.randint(variants, (count,), generator=stream).to(where)
        logits = model(torch.cat([real[shown, torch.arange(count, device=where)], fake]))
        loss = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def area_under_curve(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Chance that a real's logit (N,) exceeds a fake's (M,), ties half (Mann & Whitney 1947)."""
    fakes = fake.sort().values.contiguous()
    below, upto = (torch.searchsorted(fakes, real.contiguous(), side=s) for s in ("left", "right"))
    return float((below + upto).double().mean() / (2 * len(fake)))


def fresh_critic(
    real: torch.Tensor,
    groups: Sequence[Hashable],
    fake: torch.Tensor,
    fake_groups: Sequence[Hashable],
    params: EvaluateParams,
    seed: int,
    index: int,
) -> dict[str, float]:
    """Held-out accuracy, AUC and gap of critics of one initialisation, all folds together.

    real: (V, N, D) statistics of V variants of reals that belong to ``groups`` (N,), and
    fake: (M, D) of ``fake_groups`` (M,); at least two groups of each. A held-out real is
    judged in one variant, drawn for its row, so that it is a draw of the augmented set.
    critic_accuracy: mean of both classes' shares of hits; critic_auc: share of the pairs that
    one critic judged which it puts in order, as the logits of two critics do not compare;
    critic_gap: mean sigmoid(logit) of the reals minus that of the fakes. About 1/2, 1/2 and 0
    where nothing tells the sets apart: a fold's critic has seen less of what its rows are like,
    which biases all three downwards a little.
    """
    folds = min(FOLDS, len(set(groups)), len(set(fake_groups)))
    if folds < 2:
        raise UserError(
            "evaluate: critics judge groups that they have not seen, but one set is a single "
            "group; raise data.test_fraction, or add groups of images"
        )
    stream = generator(seed, "critic", index, "folds")
    real_fold = fold_rows(groups, folds, stream).to(real.device)
    fake_fold = fold_rows(fake_groups, folds, stream).to(fake.device)
    count = real.shape[1]
    drawn = torch.randint(len(real), (count,), generator=generator(seed, "critic", "judged"))
    judged = real[drawn.to(real.device), torch.arange(count, device=real.device)]
    on_real, on_fake = judged.new_empty(count), fake.new_empty(len(fake))
    ordered, pairs = 0.0, 0
    for fold in range(folds):
        ours, theirs = real_fold == fold, fake_fold == fold
        model = train_critic(
            real[:, real_fold != fold], fake[fake_fold != fold], params, seed, "critic", index, fold
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
    gap = on_real.double().sigmoid().mean() - on_fake.double().sigmoid().mean()
    return {
        "critic_accuracy": float(hits / 2),
        "critic_auc": ordered / pairs,
        "critic_gap": float(gap),
    }


def null_errors(num_real: int, num_fake: int) -> dict[str, float]:
    """Standard errors of one test's accuracy and AUC if both sets came from one distribution.

    accuracy: binomial, at most sqrt(1/N + 1/M) / 4, reached where half of the rows are
    called real; AUC: sqrt((N + M + F) / (12 N M)) of F equal folds, of which each adds its
    Mann-Whitney statistic (Mann & Whitney 1947: F = 1). For rows that are
    independent and judged by one critic. Measured on the demo's latents, folds that share
    training rows spread accuracies 0.8 to 1.4 times as far (halves of one model's samples),
    groups that are alike 1.8 times (maps against other maps): compare with a floor.
    """
    n, m = num_real, num_fake
    return {
        "critic_accuracy_null_se": (1 / n + 1 / m) ** 0.5 / 4,
        "critic_auc_null_se": ((n + m + FOLDS) / (12 * n * m)) ** 0.5,
    }


def two_sample_test(
    real: torch.Tensor,
    groups: Sequence[Hashable],
    fakes: Sequence[torch.Tensor],
    params: EvaluateParams,
    seed: int,
    where: torch.device,
    fake_groups: Sequence[Sequence[Hashable]] | None = None,
) -> Seeds:
    """``fresh_critic`` of every set of fakes, each with its own initialisation.

    real: (V, N, C, H, W), V variants of N reals of ``groups`` (N,); fakes: one (M, C, H, W)
    a sampling seed; scaled units, H and W at least 2. fake_groups: (M,) for each set where
    fakes are images that share groups (a floor of real against real); every sample is a
    group of its own otherwise. The reals are the same in all tests: an interval over the
    values does not hold their share.
    """
    reals = statistics(real.flatten(0, 1), where).unflatten(0, real.shape[:2])
    kinds = fake_groups if fake_groups is not None else [range(len(part)) for part in fakes]
    seeds: Seeds = {}
    for index, (part, kind) in enumerate(zip(fakes, kinds, strict=True)):
        found = fresh_critic(reals, groups, statistics(part, where), kind, params, seed, index)
        for name, value in found.items():
            seeds.setdefault(name, []).append(value)
    return seeds

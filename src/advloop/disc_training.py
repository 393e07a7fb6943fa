"""Train the discriminator on real and fake latents, without leaking groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from advloop.discriminator import Discriminator, build_discriminator, discriminator_bce
from advloop.errors import UserError
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.runtime import batches, eval_mode, generator, seeded


@dataclass(frozen=True)
class DiscData:
    """One side of the split. latents: (N, C, H, W) float32; real: (N,) 1 real, 0 fake."""

    latents: torch.Tensor
    real: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)


def split_rows(
    real_splits: list[str], num_fake: int, seed: int, iteration: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows of (real, fake) latents for ``train`` and ``val``, shuffled and balanced.

    Reals keep the side that stage prepare gave their group, so that no group stands on
    both; fakes are shuffled and cut. On each side both classes have equally many rows:
    the larger class gives up rows at random. Raises UserError if a side would be empty.
    """
    stream = generator(seed, "split", iteration)
    splits = np.array(real_splits)
    reals = {side: torch.from_numpy(np.flatnonzero(splits == side)) for side in ("train", "val")}
    reals = {
        side: rows[torch.randperm(len(rows), generator=stream)] for side, rows in reals.items()
    }
    order = torch.randperm(num_fake, generator=stream)
    num_real = sum(len(rows) for rows in reals.values())
    cut = round(num_fake * len(reals["val"]) / max(1, num_real))
    fakes = {"val": order[:cut], "train": order[cut:]}
    result = {}
    for side in ("train", "val"):
        count = min(len(reals[side]), len(fakes[side]))
        if count == 0:
            raise UserError(
                f"train_disc: the {side} side has {len(reals[side])} real and "
                f"{len(fakes[side])} fake latents; raise generate.num_samples or add images"
            )
        result[side] = (reals[side][:count], fakes[side][:count])
    return result


def make_side(
    real: torch.Tensor, fake: torch.Tensor, rows: tuple[torch.Tensor, torch.Tensor]
) -> DiscData:
    """Gather the chosen rows of both classes, real first."""
    chosen = torch.cat([real[rows[0]], fake[rows[1]]])
    labels = torch.cat([torch.ones(len(rows[0])), torch.zeros(len(rows[1]))])
    return DiscData(chosen, labels)


def judge(model: Discriminator, data: DiscData, batch_size: int) -> tuple[float, float]:
    """Mean BCE and accuracy (logit above 0 means real) on ``data``."""
    losses, hits = [], []
    with eval_mode(model):
        for part in batches(len(data), batch_size):
            rows = slice(part.start, part.stop)
            logits = model(data.latents[rows])
            losses.append(discriminator_bce(logits, data.real[rows]))
            hits.append((logits > 0) == (data.real[rows] > 0.5))
    return float(torch.cat(losses).mean()), float(torch.cat(hits).float().mean())


def _train_epoch(
    model: Discriminator,
    optimizer: torch.optim.Optimizer,
    data: DiscData,
    batch_size: int,
    stream: torch.Generator,
) -> tuple[float, float]:
    order = torch.randperm(len(data), generator=stream).to(data.latents.device)
    losses, hits = [], []
    model.train()
    for part in batches(len(order), batch_size):
        rows = order[part.start : part.stop]
        logits = model(data.latents[rows])
        loss = discriminator_bce(logits, data.real[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.detach())
        hits.append((logits.detach() > 0) == (data.real[rows] > 0.5))
    return float(torch.cat(losses).mean()), float(torch.cat(hits).float().mean())


@dataclass
class DiscResult:
    """history: one row an epoch; best and final: state dicts; best_epoch: 1-based."""

    config: dict[str, Any]
    history: list[dict[str, float]]
    best: dict[str, torch.Tensor]
    final: dict[str, torch.Tensor]
    best_epoch: int


def train_discriminator(
    params: TrainDiscParams,
    model_params: DiscriminatorParams,
    train: DiscData,
    val: DiscData,
    seed: int,
    iteration: int,
    on_epoch: Callable[[dict[str, float]], None],
) -> DiscResult:
    """BCE with logits, plateau schedule and best checkpoint by validation loss.

    ``on_epoch`` receives each history row: epoch, learning_rate, train_loss,
    train_accuracy, val_loss, val_accuracy. Raises UserError on a non-finite loss.
    """
    model = build_discriminator(model_params, train.latents.shape[1], seed, iteration)
    model.to(train.latents.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), params.learning_rate, weight_decay=params.weight_decay
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=params.plateau_factor, patience=params.plateau_patience
    )

    def weights() -> dict[str, torch.Tensor]:
        return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}

    history: list[dict[str, float]] = []
    best: dict[str, torch.Tensor] = {}
    best_epoch, best_loss = 0, math.inf
    for epoch in range(1, params.epochs + 1):
        rate = optimizer.param_groups[0]["lr"]
        key = ("train_disc", iteration, epoch)
        with seeded(seed, *key, "dropout"):
            stream = generator(seed, *key, "rows")
            train_loss, train_accuracy = _train_epoch(
                model, optimizer, train, params.batch_size, stream
            )
        val_loss, val_accuracy = judge(model, val, params.batch_size)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise UserError(
                f"train_disc: train_loss={train_loss}, val_loss={val_loss} in epoch {epoch}; "
                f"lower train_disc.learning_rate={params.learning_rate}"
            )
        plateau.step(val_loss)
        history.append(
            {
                "epoch": epoch,
                "learning_rate": rate,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
            }
        )
        on_epoch(history[-1])
        if val_loss < best_loss:
            best, best_epoch, best_loss = weights(), epoch, val_loss
    return DiscResult(model.config, history, best, weights(), best_epoch)

"""Train the discriminator on one side of its data, and judge it on the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from advloop.core.errors import UserError
from advloop.core.leader import leads
from advloop.core.ranks import spread, sum_gradients
from advloop.core.resume import Content, Never, Resume, Stateful, restore, states
from advloop.core.runtime import autocast, batches, eval_mode, generator, seeded
from advloop.disc.data import DiscData, renoise
from advloop.discriminator import (
    Discriminator,
    build_discriminator,
    discriminator_bce,
    r1_penalty,
)
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.schedule import clear_timesteps

Row = dict[str, float]


class Judgement(NamedTuple):
    """loss: mean BCE. accuracy: share of right answers, logit above 0 meaning real.

    viability: mean sigmoid(D) of the fakes, in (0, 1).
    """

    loss: float
    accuracy: float
    viability: float


def _logits(
    model: Discriminator,
    latents: torch.Tensor,
    timesteps: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    *,
    precision: str = "fp32",
) -> torch.Tensor:
    """``model(latents, …)``, whose convolutions several processes share, in ``precision``.

    The rest is every process's own, so that its dropout is that of one process, and in float32.
    """
    told = () if timesteps is None else (timesteps,)
    with autocast(precision, latents.device):
        pooled = spread(model.pool, latents, *told)
    return model.classify(pooled.float(), labels)


SHARED = ("features.", "time_bias.")  # the parameters of ``Discriminator.pool``


def judge(
    model: Discriminator, data: DiscData, batch_size: int, precision: str = "fp32"
) -> Judgement:
    """How ``model`` does on ``data``, which holds both classes."""
    judged = []
    with eval_mode(model):
        for part in batches(len(data), batch_size):
            rows = slice(part.start, part.stop)
            judged.append(_logits(model, *data.shown(rows), precision=precision))
    logits = torch.cat(judged)
    hits = (logits > 0) == (data.real > 0.5)
    return Judgement(
        loss=float(discriminator_bce(logits, data.real).mean()),
        accuracy=float(hits.float().mean()),
        viability=float(logits[data.real < 0.5].sigmoid().mean()),
    )


def _reals_penalty(
    model: Discriminator,
    data: DiscData,
    rows: torch.Tensor,
    sigma: float,
    stream: torch.Generator,
) -> torch.Tensor:
    """Mean R1 penalty at the reals among ``rows``, a scalar with a gradient; 0 without any.

    In float32: bfloat16 rounds away the small difference that it is made of.
    """
    latents, *told = data.shown(rows[data.real[rows] > 0.5])
    if len(latents) == 0:
        return latents.new_zeros(())
    eps = torch.randn(latents.shape, generator=stream).to(latents.device)
    model.eval()  # without dropout, see r1_penalty
    penalty = r1_penalty(partial(_logits, model), latents, eps, sigma, *told).mean()
    model.train()
    return penalty


def _train_epoch(
    model: Discriminator,
    optimizer: torch.optim.Optimizer,
    data: DiscData,
    params: TrainDiscParams,
    stream: torch.Generator,
    penalty_stream: torch.Generator,
    precision: str,
) -> tuple[float, float]:
    """(mean BCE, accuracy) of one pass over ``data``; the R1 penalty is in neither."""
    order = torch.randperm(len(data), generator=stream).to(data.latents.device)
    losses, hits = [], []
    model.train()
    for part in batches(len(order), params.batch_size):
        rows = order[part.start : part.stop]
        logits = _logits(model, *data.shown(rows), precision=precision)
        losses_of_rows = discriminator_bce(logits, data.real[rows])
        loss = losses_of_rows.mean()
        if params.r1_weight:
            loss = loss + params.r1_weight * _reals_penalty(
                model, data, rows, params.r1_sigma, penalty_stream
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        sum_gradients(p for name, p in model.named_parameters() if name.startswith(SHARED))
        optimizer.step()
        losses.append(losses_of_rows.detach())
        hits.append((logits.detach() > 0) == (data.real[rows] > 0.5))
    return float(torch.cat(losses).mean()), float(torch.cat(hits).float().mean())


@dataclass
class DiscResult:
    """history: one row an epoch; best and final: state dicts; best_epoch: 1-based."""

    config: dict[str, Any]
    history: list[Row]
    best: dict[str, torch.Tensor]
    final: dict[str, torch.Tensor]
    best_epoch: int


def train_discriminator(
    params: TrainDiscParams,
    model_params: DiscriminatorParams,
    train: DiscData,
    val: DiscData,
    alphas_cumprod: torch.Tensor,
    seed: int,
    iteration: int,
    on_epoch: Callable[[list[Row]], None],
    resume: Resume | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    num_classes: int = 0,
    precision: str = "fp32",
) -> DiscResult:
    """BCE with logits, plateau schedule and best checkpoint by validation loss.

    Runs ``params.epochs`` epochs, or until the first whose validation accuracy is at least
    ``params.stop_accuracy``. A noise-conditioned discriminator sees every row re-noised:
    anew each epoch in training, always alike in validation. ``on_epoch`` receives the
    history after each: epoch, learning_rate, train_loss, train_accuracy, val_loss, val_accuracy,
    val_viability. Raises UserError on a non-finite loss. resume: takes a snapshot after
    ``on_epoch``, and gives the one to go on from. num_classes: of the labels in both sides.
    precision: ``fp32`` or ``bf16``, of the convolutions; losses and the R1 penalty are float32.
    """
    resume = resume or Never()
    limit = 0
    if model_params.noise_conditioned:
        limit = clear_timesteps(
            alphas_cumprod, params.renoise_min_alpha_bar, "train_disc.renoise_min_alpha_bar"
        )

    def shown(data: DiscData, *key: int | str) -> DiscData:
        if not model_params.noise_conditioned:
            return data
        return renoise(data, alphas_cumprod, limit, generator(seed, *key, "renoise"))

    model = build_discriminator(model_params, train.latents.shape[1], seed, iteration, num_classes)
    model.to(train.latents.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=params.plateau_factor, patience=params.plateau_patience
    )

    def weights() -> dict[str, torch.Tensor]:
        form = torch.contiguous_format
        state = model.state_dict()
        return {k: v.detach().cpu().clone(memory_format=form) for k, v in state.items()}

    val = shown(val, "train_disc", "validation")

    def stopped() -> bool:
        enough = params.stop_accuracy
        return enough is not None and bool(history) and history[-1]["val_accuracy"] >= enough

    history: list[Row] = []
    best: dict[str, torch.Tensor] = {}
    best_epoch, best_loss = 0, math.inf
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "plateau": plateau}

    def snapshot() -> Content:
        return {"history": history, "best": best, "best_epoch": best_epoch, **states(parts)}

    if content := resume.load():
        history, best, best_epoch = (content[k] for k in ("history", "best", "best_epoch"))
        best_loss = history[best_epoch - 1]["val_loss"]
        restore(parts, content)
    for epoch in progress(range(len(history) + 1, params.epochs + 1)):
        if stopped():
            break
        rate = optimizer.param_groups[0]["lr"]
        key = ("train_disc", iteration, epoch)
        with seeded(seed, *key, "dropout"):
            train_loss, train_accuracy = _train_epoch(
                model,
                optimizer,
                shown(train, *key),
                params,
                generator(seed, *key, "rows"),
                generator(seed, *key, "r1"),
                precision,
            )
        judged = judge(model, val, params.batch_size, precision)
        if not (math.isfinite(train_loss) and math.isfinite(judged.loss)):
            raise UserError(
                f"train_disc: train_loss={train_loss}, val_loss={judged.loss} in epoch {epoch}; "
                f"lower train_disc.learning_rate={params.learning_rate}"
            )
        plateau.step(judged.loss)
        history.append(
            {
                "epoch": epoch,
                "learning_rate": rate,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "val_loss": judged.loss,
                "val_accuracy": judged.accuracy,
                "val_viability": judged.viability,
            }
        )
        if judged.loss < best_loss:
            best, best_epoch, best_loss = weights(), epoch, judged.loss
        if leads():
            on_epoch(history)
        resume.offer(snapshot)
    return DiscResult(model.config, history, best, weights(), best_epoch)

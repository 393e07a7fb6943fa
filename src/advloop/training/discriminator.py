"""Train the discriminator on one side of its data, and validate it on the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from advloop.core.device import eval_mode
from advloop.core.errors import UserError
from advloop.core.processes import is_main_process
from advloop.core.random import batches, generator, seeded
from advloop.diffusion.process import Process
from advloop.infra.snapshots import NoResume, Resume, Snapshot, Stateful, restore, states
from advloop.models.discriminator import (
    Discriminator,
    build_discriminator,
    discriminator_bce,
    r1_penalty,
)
from advloop.models.pairing import accuracy, pairing_loss
from advloop.params.training import DiscriminatorParams, TrainDiscParams
from advloop.training.discriminator_data import DiscData, renoise
from advloop.training.history import Row, best_row
from advloop.training.pairs import (
    Pairs,
    centre,
    logits_of,
    measure_statistics,
    paired_rows,
    step_on_pairs,
    sum_shared_gradients,
)

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class DiscriminatorSetup:
    """What one training of the discriminator is made of.

    seed and iteration key the random streams. process: which noises what the discriminator sees.
    num_classes: of the labels in both sides, 0 without labels. precision: ``fp32`` or ``bf16``,
    of the convolutions; losses and the R1 penalty are always float32.
    """

    params: TrainDiscParams
    model: DiscriminatorParams
    train: DiscData
    val: DiscData
    process: Process
    seed: int
    iteration: int
    num_classes: int = 0
    precision: str = "fp32"

    def noised(self, data: DiscData, *key: int | str) -> DiscData:
        """``data`` as the discriminator sees it: re-noised, if it is noise-conditioned."""
        if not self.model.noise_conditioned:
            return data
        bound = self.params.renoise_min_alpha_bar
        limit = self.process.timestep_limit(bound, "train_disc.renoise_min_alpha_bar")
        stream = generator(self.seed, "train_disc", *key, "renoise")
        return renoise(data, self.process, limit, stream)


@dataclass
class DiscResult:
    """history: one row per epoch; best, final: weights after the best and the last epoch."""

    config: dict[str, Any]
    history: list[Row]
    best: Weights
    final: Weights


class Validation(NamedTuple):
    """loss: mean BCE, or that of pairs. accuracy: share of right answers; above 0 means real.

    viability: mean sigmoid(D) of the fakes, in (0, 1).
    """

    loss: float
    accuracy: float
    viability: float


def train_discriminator(
    setup: DiscriminatorSetup,
    progress: Callable[[Iterable[int]], Iterable[int]],
    on_epoch: Callable[[list[Row]], None],
    resume: Resume | None = None,
) -> DiscResult:
    """Minimise ``loss`` on ``train``, lower the learning rate on plateaus of ``val``'s loss.

    Runs ``epochs`` epochs, or until the first whose validation accuracy is at least
    ``stop_accuracy``. A noise-conditioned discriminator sees every row re-noised: anew in each
    training epoch, and always alike in validation. ``on_epoch`` receives the history after each
    epoch: epoch, learning_rate, train_loss, train_accuracy, val_loss, val_accuracy,
    val_viability. Raises UserError on a non-finite loss. resume: takes a snapshot after
    ``on_epoch``, and gives the one to go on from.
    """
    resume = resume or NoResume()
    params, latents = setup.params, setup.train.latents
    _, channels, height, width = latents.shape
    model = build_discriminator(
        setup.model, (channels, height, width), setup.seed, setup.iteration, setup.num_classes
    )
    model.to(latents.device)
    measure_statistics(model, latents)
    optimizer = torch.optim.AdamW(
        model.parameters(), params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=params.plateau_factor, patience=params.plateau_patience
    )
    val = setup.noised(setup.val, "validation")
    history: list[Row] = []
    best: Weights = {}
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "plateau": plateau}

    def snapshot() -> Snapshot:
        return {"history": history, "best": best, **states(parts)}

    if content := resume.load():
        history, best = content["history"], content["best"]
        restore(parts, content)
    for epoch in progress(range(len(history) + 1, params.epochs + 1)):
        if history and _is_strong_enough(history[-1], params):
            break
        row: Row = {"epoch": epoch, "learning_rate": optimizer.param_groups[0]["lr"]}
        train_epoch = _train_epoch_on_pairs if params.loss == "relativistic" else _train_epoch
        row["train_loss"], row["train_accuracy"] = train_epoch(setup, model, optimizer, epoch)
        validated = validate(model, val, params.batch_size, setup.precision, params.loss)
        row |= {f"val_{name}": value for name, value in validated._asdict().items()}
        _refuse_non_finite(row, params)
        plateau.step(validated.loss)
        history.append(row)
        if best_row(history) is row:
            best = _weights_of(model)
        if is_main_process():
            on_epoch(history)
        resume.offer(snapshot)
    return DiscResult(model.config, history, best, _weights_of(model))


def _train_epoch(
    setup: DiscriminatorSetup, model: Discriminator, optimizer: torch.optim.Optimizer, epoch: int
) -> tuple[float, float]:
    """(mean BCE, accuracy) of one pass over the training side; without the R1 penalty."""
    params, key = setup.params, ("train_disc", setup.iteration, epoch)
    data = setup.noised(setup.train, setup.iteration, epoch)
    order = torch.randperm(len(data), generator=generator(setup.seed, *key, "rows"))
    order = order.to(data.latents.device)
    penalty_noise = generator(setup.seed, *key, "r1")
    losses, hits = [], []
    model.train()
    with seeded(setup.seed, *key, "dropout"):
        for part in batches(len(order), params.batch_size):
            # 1. Tell the reals of a batch from its fakes.
            rows = order[part.start : part.stop]
            real = data.real[rows]
            logits = logits_of(model, *data.inputs(rows), precision=setup.precision)
            errors = discriminator_bce(logits, real)
            # 2. Keep the discriminator flat at the reals.
            loss = errors.mean()
            if params.r1_weight:
                penalty = _penalty_at(model, data, rows[real > 0.5], params.r1_sigma, penalty_noise)
                loss = loss + params.r1_weight * penalty
            # 3. Step.
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            sum_shared_gradients(model)
            optimizer.step()
            # 4. Log, without waiting for the device.
            losses.append(errors.detach())
            hits.append((logits.detach() > 0) == (real > 0.5))
    return float(torch.cat(losses).mean()), float(torch.cat(hits).float().mean())


def _train_epoch_on_pairs(
    setup: DiscriminatorSetup, model: Discriminator, optimizer: torch.optim.Optimizer, epoch: int
) -> tuple[float, float]:
    """(mean loss, accuracy) of pairs in one pass over the training side; then D's zero is set."""
    params, key = setup.params, ("train_disc", setup.iteration, epoch)
    data, pairs = setup.train, max(1, params.batch_size // 2)
    real, fake = paired_rows(data, generator(setup.seed, *key, "rows"))
    noise = generator(setup.seed, *key, "penalties")
    steps = []
    for part in batches(len(real), pairs):
        rows = slice(part.start, part.stop)
        batch = Pairs(
            data.latents[real[rows]],
            data.latents[fake[rows]],
            None if data.labels is None else data.labels[real[rows]],
        )
        steps.append(step_on_pairs(model, optimizer, batch, params, noise))
    on_real = torch.cat([step.real for step in steps])
    on_fake = torch.cat([step.fake for step in steps])
    centre(model, on_real, on_fake)
    return float(pairing_loss(on_real, on_fake).mean()), float(accuracy(on_real, on_fake))


def _penalty_at(
    model: Discriminator, data: DiscData, rows: torch.Tensor, sigma: float, stream: torch.Generator
) -> torch.Tensor:
    """Mean R1 penalty at ``rows``, a scalar with a gradient; 0 if there are none.

    In float32: the penalty is a small difference, which bfloat16 would round away.
    """
    latents, *conditions = data.inputs(rows)
    if len(latents) == 0:
        return latents.new_zeros(())
    eps = torch.randn(latents.shape, generator=stream).to(latents.device)
    model.eval()  # without dropout, see r1_penalty
    penalty = r1_penalty(partial(logits_of, model), latents, eps, sigma, *conditions).mean()
    model.train()
    return penalty


def validate(
    model: Discriminator,
    data: DiscData,
    batch_size: int,
    precision: str = "fp32",
    loss: str = "bce",
) -> Validation:
    """How well ``model`` does on ``data``, which holds as many reals as fakes, reals first."""
    found = []
    with eval_mode(model):
        for part in batches(len(data), batch_size):
            rows = slice(part.start, part.stop)
            found.append(logits_of(model, *data.inputs(rows), precision=precision))
    logits = torch.cat(found)
    hits = (logits > 0) == (data.real > 0.5)
    errors = discriminator_bce(logits, data.real)
    if loss == "relativistic":
        errors = pairing_loss(*logits.chunk(2))
    return Validation(
        loss=float(errors.mean()),
        accuracy=float(hits.float().mean()),
        viability=float(logits[data.real < 0.5].sigmoid().mean()),
    )


def _is_strong_enough(row: Row, params: TrainDiscParams) -> bool:
    return params.stop_accuracy is not None and row["val_accuracy"] >= params.stop_accuracy


def _refuse_non_finite(row: Row, params: TrainDiscParams) -> None:
    if not (math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])):
        raise UserError(
            f"train_disc: train_loss={row['train_loss']}, val_loss={row['val_loss']} in epoch "
            f"{row['epoch']}; lower train_disc.learning_rate={params.learning_rate}"
        )


def _weights_of(model: Discriminator) -> Weights:
    """A copy of the weights on the CPU, in the usual memory layout."""
    return {
        name: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, weight in model.state_dict().items()
    }

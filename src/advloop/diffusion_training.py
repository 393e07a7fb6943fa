"""The training loop of the diffusion model, for the base model and for every round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

import torch
from torch import nn

from advloop.averaging import Average
from advloop.core.errors import UserError
from advloop.core.leader import leads
from advloop.core.ranks import sum_gradients
from advloop.core.resume import Never, Resume, Stateful, restore, states
from advloop.core.runtime import batches, generator, shuffled_rows
from advloop.criterion import Criterion, Noised, held_out
from advloop.objectives.weighting import AdaptiveWeight
from advloop.prefetch import ahead, to_device
from advloop.schedule import stratified_timesteps
from advloop.unet import Denoiser

Row = dict[str, float]


class TrainingParams(Protocol):
    """What the loop needs of BaseParams and TrainDiffusionParams."""

    epochs: int
    samples_per_epoch: int | None
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    grad_clip: float
    eval_interval: int


@dataclass(frozen=True)
class Labels:
    """Classes (N,) int64 of a Setup's latents."""

    train: torch.Tensor
    val: torch.Tensor
    fakes: torch.Tensor | None = None
    val_fakes: torch.Tensor | None = None


@dataclass(frozen=True)
class Setup:
    """What one training is made of.

    train, val: latents (N, C, H, W) float32; fakes, val_fakes: generated ones, for an
    objective that wants them. stage and iteration key the random streams. adaptive: sets the
    weight of each step, in place of the criterion's own, which validation keeps: its loss is
    to be comparable from epoch to epoch. labels: where the model is told of classes.
    """

    params: TrainingParams
    criterion: Criterion
    train: torch.Tensor
    val: torch.Tensor
    seed: int
    stage: str
    iteration: int
    fakes: torch.Tensor | None = None
    val_fakes: torch.Tensor | None = None
    adaptive: AdaptiveWeight | None = None
    labels: Labels | None = None

    @property
    def rows_per_epoch(self) -> int:
        return self.params.samples_per_epoch or len(self.train)

    @property
    def total_steps(self) -> int:
        return self.params.epochs * math.ceil(self.rows_per_epoch / self.params.batch_size)


def epoch_rows(setup: Setup, epoch: int, count: int, *key: str) -> torch.Tensor:
    """Rows out of ``count`` for one epoch: a fresh permutation, cut or repeated to its length."""
    stream = generator(setup.seed, setup.stage, setup.iteration, "rows", epoch, *key)
    return shuffled_rows(setup.rows_per_epoch, count, stream)


def best_row(history: Sequence[Row]) -> Row:
    """The row of the lowest val_loss, of equal ones the earlier; {} where none has it."""
    measured = [row for row in history if "val_loss" in row]
    return min(measured, key=lambda row: row["val_loss"]) if measured else {}


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to 1, then a cosine to 0 at ``total_steps``; counted in optimizer steps."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _refuse_non_finite(setup: Setup, epoch: int, columns: dict[str, torch.Tensor]) -> None:
    """Raise UserError at the first step (entry of each column) with a value that is not finite.

    One look an epoch, so that no step waits for the device; a term is named before the sum.
    """
    names = sorted(columns, key=("loss", "grad_norm").__contains__)
    bad = torch.stack([~torch.isfinite(columns[name]) for name in names])
    if not bad.any():
        return
    step = int(bad.any(0).nonzero()[0])
    name = names[int(bad[:, step].nonzero()[0])]
    where = f"{name} is {float(columns[name][step])} in epoch {epoch}, step {step + 1}"
    raise _diverged(setup, where)


def _diverged(setup: Setup, where: str) -> UserError:
    weight = setup.criterion.weight
    return UserError(
        f"{setup.stage}: {where}; checkpoints of earlier epochs are kept; lower its "
        f"learning_rate ({setup.params.learning_rate})"
        + (f" or objective.weight ({weight})" if weight else "")
    )


class _Draws:
    """Batches of one epoch out of ``latents``: rows, noise and timesteps of their own streams."""

    def __init__(
        self,
        setup: Setup,
        latents: torch.Tensor,
        labels: torch.Tensor | None,
        epoch: int,
        *key: str,
    ) -> None:
        self.latents, self.labels, self.where = latents, labels, setup.criterion.where
        self.limit = setup.criterion.diffusion.num_train_timesteps
        self.parts = batches(setup.rows_per_epoch, setup.params.batch_size)
        self.rows = epoch_rows(setup, epoch, len(latents), *key)
        self.stream = generator(setup.seed, setup.stage, setup.iteration, "noise", epoch, *key)

    def _make(self, part: range) -> Noised:
        rows = self.rows[part.start : part.stop]
        x0 = self.latents[rows]
        eps = torch.randn(x0.shape, generator=self.stream)
        timesteps = stratified_timesteps(len(x0), self.limit, self.stream)
        timesteps = timesteps[torch.randperm(len(x0), generator=self.stream)]  # they ascend
        x0, eps, timesteps = (to_device(drawn, self.where) for drawn in (x0, eps, timesteps))
        told = None if self.labels is None else to_device(self.labels[rows], self.where)
        return Noised(x0, eps, timesteps, told)

    def __iter__(self) -> Iterator[Noised]:
        """Of a GPU's batches the host makes one while the GPU works on another."""
        made = (self._make(part) for part in self.parts)
        return ahead(made) if self.where.type == "cuda" else made


def _train_epoch(
    setup: Setup,
    denoiser: Denoiser,
    average: Average,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    epoch: int,
) -> Row:
    labels = setup.labels
    reals = _Draws(setup, setup.train, labels.train if labels else None, epoch)
    fake: Iterable[Noised | None] = repeat(None)
    if setup.fakes is not None:
        fake = _Draws(setup, setup.fakes, labels.fakes if labels else None, epoch, "fake")
    history: list[dict[str, torch.Tensor]] = []
    denoiser.train()
    weights = list(denoiser.parameters())  # walking through the modules takes milliseconds
    for real, generated in zip(reals, fake, strict=False):
        loss, terms = setup.criterion(
            denoiser,
            *real,
            fake=generated,
            weight=setup.adaptive.current() if setup.adaptive else None,
        )
        if setup.adaptive:
            setup.adaptive.update(terms)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        sum_gradients(weights)
        norm = nn.utils.clip_grad_norm_(weights, setup.params.grad_clip)
        optimizer.step()
        schedule.step()
        average.update()
        history.append({"loss": loss.detach(), **terms, "grad_norm": norm})
    columns = {name: torch.stack([row[name] for row in history]) for name in history[0]}
    _refuse_non_finite(setup, epoch, columns)
    return {name: float(values.mean()) for name, values in columns.items()}


def train_diffusion(
    setup: Setup,
    denoiser: Denoiser,
    progress: Callable[[Iterable[int]], Iterable[int]],
    on_epoch: Callable[[list[Row], Denoiser, Denoiser], None],
    resume: Resume | None = None,
) -> list[Row]:
    """Train ``denoiser`` in place and hand (history, model, ema) to ``on_epoch`` every epoch.

    history: a row of every epoch so far, and what is returned at the end. A row: epoch,
    learning_rate, loss, the objective's terms, grad_norm, and the ``val_`` values of the EMA
    weights every eval_interval epochs and at the last one. Raises UserError on a non-finite
    term, before ``on_epoch`` sees that epoch; of several processes the leader alone calls it.
    resume: takes a snapshot after ``on_epoch``, and gives the one to go on from; then
    ``on_epoch`` is called for the rest alone.
    """
    resume = resume or Never()
    params = setup.params
    average = Average(denoiser, params.ema_decay)
    optimizer = torch.optim.AdamW(  # betas of Karras et al. 2024 (EDM2)
        denoiser.parameters(),
        params.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: learning_rate_factor(s, params.warmup_steps, setup.total_steps)
    )
    history: list[Row] = []
    parts: dict[str, Stateful] = {
        "model": denoiser,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    if setup.adaptive:
        parts["adaptive"] = setup.adaptive
    if content := resume.load():
        history = content["history"]
        restore(parts, content)
    for epoch in progress(range(len(history) + 1, params.epochs + 1)):
        rate = float(optimizer.param_groups[0]["lr"])
        row: Row = {"epoch": epoch, "learning_rate": rate}
        row |= _train_epoch(setup, denoiser, average, optimizer, schedule, epoch)
        if epoch % params.eval_interval == 0 or epoch == params.epochs:
            measured = held_out(
                setup.criterion,
                average.model,
                setup.val,
                setup.seed,
                params.batch_size,
                setup.val_fakes,
                setup.labels.val if setup.labels else None,
                setup.labels.val_fakes if setup.labels else None,
            )
            row |= {f"val_{name}": value for name, value in measured.items()}
            if not math.isfinite(row["val_loss"]):
                raise _diverged(setup, f"val_loss is {row['val_loss']} in epoch {epoch}")
        history.append(row)
        if leads():
            on_epoch(history, denoiser, average.model)
        resume.offer(lambda: {"history": history, **states(parts)})
    return history

"""The training loop of the diffusion model, for the base model and for every round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from advloop.core.device import spare_memory
from advloop.core.distributed import rank, sum_gradients
from advloop.core.errors import UserError
from advloop.core.processes import is_main_process
from advloop.core.random import generator, seeded
from advloop.diffusion.criterion import Criterion, Noised, held_out
from advloop.infra.snapshots import NoResume, Resume, Stateful, restore, states
from advloop.models.denoiser import Denoiser
from advloop.params.training import TrainingParams
from advloop.training.batches import Epoch, Side
from advloop.training.history import Row
from advloop.training.weights import Trained, average_of, trained_weights

if TYPE_CHECKING:
    from advloop.objectives import Weighting
    from advloop.training.opponent import Opponent


@dataclass(frozen=True)
class Setup:
    """What one training of the diffusion model is made of.

    fakes, val_fakes: generated latents, for an objective that needs them. seed, stage and
    iteration key the random streams. adaptive: sets the weight of each training step. Validation
    always uses the criterion's own weight, so that its losses are comparable between epochs.
    merge: the averaged model -> the one that is validated and handed on in its place. opponent: a
    discriminator that judges samples at each step, and whose collapse ends the training early.
    """

    params: TrainingParams
    criterion: Criterion
    train: Side
    val: Side
    seed: int
    stage: str
    iteration: int
    fakes: Side | None = None
    val_fakes: Side | None = None
    adaptive: Weighting | None = None
    merge: Callable[[Denoiser], Denoiser] | None = None
    opponent: Opponent | None = None

    @property
    def rows_per_epoch(self) -> int:
        return self.params.samples_per_epoch or len(self.train)

    @property
    def total_steps(self) -> int:
        return self.params.total_steps(len(self.train))

    @property
    def momentum(self) -> float:
        """EDM2's (Karras et al. 2024), but none against an opponent that moves, too (R3GAN)."""
        return 0.0 if self.opponent else 0.9

    @property
    def collapsed(self) -> bool:
        return self.opponent is not None and self.opponent.collapsed

    def handed_on(self, average: AveragedModel) -> Denoiser:
        """The model of the averaged weights, after ``merge`` if there is one."""
        model = cast(Denoiser, average.module)
        return self.merge(model) if self.merge else model

    def epoch(self, number: int, side: Side, *key: str) -> Epoch:
        """The batches of ``side`` in epoch ``number``; key: of its random streams."""
        streams = [
            generator(self.seed, self.stage, self.iteration, kind, number, *key)
            for kind in ("rows", "noise")
        ]
        criterion = self.criterion
        return Epoch(
            side,
            self.rows_per_epoch,
            self.params.batch_size,
            criterion.process.num_train_timesteps,
            criterion.device,
            *streams,
        )


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to 1, then a cosine to 0 at ``total_steps``; counted in optimizer steps."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train_diffusion(
    setup: Setup,
    denoiser: Denoiser,
    progress: Callable[[Iterable[int]], Iterable[int]],
    on_epoch: Callable[[list[Row], Denoiser, Denoiser], None],
    resume: Resume | None = None,
) -> list[Row]:
    """Train ``denoiser`` in place, and call ``on_epoch(history, model, ema)`` after every epoch.

    Frozen weights, as those beside an adapter, stay as they are. Returns the history, one row per
    epoch: epoch, learning_rate, loss, the objective's terms, grad_norm. Every eval_interval epochs,
    and in the last one, a row also has the ``val_`` values of ``ema``, the moving average of the
    weights, which all later stages use (Ho et al. 2020, appendix B). Raises UserError if the
    warm-up takes the whole training, and on a non-finite value, before ``on_epoch`` sees that
    epoch; ``on_epoch`` runs in the main process only. resume: takes a snapshot after each epoch,
    and gives the one to go on from; ``on_epoch`` is then called for the remaining epochs.
    """
    resume = resume or NoResume()
    params = setup.params
    if problem := params.warmup_problem(len(setup.train)):
        raise UserError(f"params.yaml: {setup.stage}: warmup_steps={params.warmup_steps} {problem}")
    average = average_of(denoiser, params.ema_decay)
    spare_memory(denoiser)
    optimizer = torch.optim.AdamW(
        trained_weights(denoiser),
        params.learning_rate,
        betas=(setup.momentum, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: learning_rate_factor(s, params.warmup_steps, setup.total_steps)
    )
    parts: dict[str, Stateful] = {
        "model": Trained(denoiser),
        "average": Trained(average),
        "optimizer": optimizer,
        "schedule": schedule,
    }
    if setup.adaptive:
        parts["adaptive"] = setup.adaptive
    if setup.opponent:
        parts["opponent"] = setup.opponent
    history: list[Row] = []
    if content := resume.load():
        history = content["history"]
        restore(parts, content)
    for epoch in progress(range(len(history) + 1, params.epochs + 1)):
        if setup.collapsed:
            break
        row: Row = {"epoch": epoch, "learning_rate": float(optimizer.param_groups[0]["lr"])}
        # An imported U-Net may have dropout, which draws from the global stream. Each process
        # computes rows of its own, and so draws for itself.
        with seeded(setup.seed, setup.stage, setup.iteration, "dropout", epoch, rank()):
            row |= _train_epoch(setup, denoiser, average, optimizer, schedule, epoch)
        if epoch % params.eval_interval == 0 or epoch == params.epochs or setup.collapsed:
            row |= validate(setup, setup.handed_on(average), epoch)
        history.append(row)
        if is_main_process():
            on_epoch(history, denoiser, setup.handed_on(average))
        resume.offer(lambda: {"history": history, **states(parts)})
    return history


def _train_epoch(
    setup: Setup,
    denoiser: Denoiser,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    epoch: int,
) -> Row:
    """One epoch: the mean of every column over its steps."""
    fakes: Iterable[Noised | None] = repeat(None)
    if setup.fakes is not None:
        fakes = setup.epoch(epoch, setup.fakes, "fake")
    steps: list[dict[str, torch.Tensor]] = []
    weights = trained_weights(denoiser)  # walking through the modules takes milliseconds
    handed: dict[str, Stateful] = {"model": Trained(denoiser), "average": Trained(average)}
    denoiser.train()
    # 1. Take a batch of noised reals, and one of noised fakes if the objective needs them.
    for real, fake in zip(setup.epoch(epoch, setup.train), fakes, strict=False):
        # 2. Predict, and ask the objective for the loss.
        weight = setup.adaptive.current() if setup.adaptive else None
        loss, terms = setup.criterion(denoiser, *real, fake=fake, weight=weight)
        if setup.adaptive:
            setup.adaptive.update(terms)
        # 3. Sample, and let the opponent judge, if there is one.
        if setup.opponent:
            judged, more = setup.opponent.play(denoiser, handed)
            loss, terms = loss + setup.criterion.weight * judged, terms | more
        # 4. Step.
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        sum_gradients(weights)
        norm = nn.utils.clip_grad_norm_(weights, setup.params.grad_clip)
        optimizer.step()
        schedule.step()
        # 5. Average the weights.
        average.update_parameters(denoiser)
        # 6. Log, without waiting for the device.
        steps.append({"loss": loss.detach(), **terms, "grad_norm": norm})
        # 7. End with the last good weights if the opponent has nothing more to say.
        if setup.opponent and setup.collapsed:
            setup.opponent.undo(handed)
            break
    columns = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
    _refuse_non_finite(setup, epoch, columns)
    return {name: float(values.mean()) for name, values in columns.items()}


def validate(setup: Setup, model: Denoiser, epoch: int) -> Row:
    """The ``val_`` values of ``model`` on the validation side; UserError on a non-finite loss."""
    fakes = setup.val_fakes
    measured = held_out(
        setup.criterion,
        model,
        setup.val.latents,
        setup.seed,
        setup.params.batch_size,
        fakes.latents if fakes else None,
        setup.val.labels,
        fakes.labels if fakes else None,
    )
    if setup.opponent:
        judged = setup.opponent.validate(model)
        measured["loss"] += setup.criterion.weight * judged["generator_loss"]
        measured |= judged
    if not math.isfinite(measured["loss"]):
        raise _diverged(setup, f"val_loss is {measured['loss']} in epoch {epoch}")
    return {f"val_{name}": value for name, value in measured.items()}


def _refuse_non_finite(setup: Setup, epoch: int, columns: dict[str, torch.Tensor]) -> None:
    """Raise UserError that names the first step with a non-finite value; columns: (steps,).

    It looks once per epoch, so that no step waits for the device. A term that spoils the loss
    is named rather than the loss.
    """
    names = sorted(columns, key=("loss", "grad_norm").__contains__)
    bad = torch.stack([~torch.isfinite(columns[name]) for name in names])
    if not bad.any():
        return
    step = int(bad.any(0).nonzero()[0])
    name = names[int(bad[:, step].nonzero()[0])]
    value = float(columns[name][step])
    raise _diverged(setup, f"{name} is {value} in epoch {epoch}, step {step + 1}")


def _diverged(setup: Setup, problem: str) -> UserError:
    weight = setup.criterion.weight
    return UserError(
        f"{setup.stage}: {problem}; checkpoints of earlier epochs are kept; lower its "
        f"learning_rate ({setup.params.learning_rate})"
        + (f" or objective.weight ({weight})" if weight else "")
    )

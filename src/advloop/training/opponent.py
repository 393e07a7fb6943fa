"""The discriminator that a diffusion model plays against while it is fine-tuned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from advloop.core.device import autocast, eval_mode
from advloop.core.distributed import split_across_processes
from advloop.core.errors import counted
from advloop.core.random import batches, generator, noise_for
from advloop.diffusion.criterion import Criterion
from advloop.diffusion.unrolled import sample_with_gradient
from advloop.infra.snapshots import Snapshot, Stateful, restore, states
from advloop.models.denoiser import Denoiser
from advloop.models.discriminator import Discriminator
from advloop.models.pairing import accuracy
from advloop.training.balance import Band, Collapse
from advloop.training.batches import Side
from advloop.training.pairs import Pairs, PairStep, Reals, step_on_pairs

if TYPE_CHECKING:
    from advloop.diffusion.batch import Terms
    from advloop.objectives.adversarial import AdversarialParams

VALIDATED = 128  # samples in a validation, at most

Parts = Mapping[str, Stateful]


@dataclass
class Opponent:
    """Teaches ``discriminator`` on recent samples, and lets it judge new ones.

    judge: logits of reals (B,) and of samples (B,) -> the generator's loss and terms. train, val:
    reals to learn from, and to measure the accuracy with. fakes: the round's own, the first to
    learn from. Random streams are keyed by (seed, train_diffusion, iteration, step).
    """

    settings: AdversarialParams
    judge: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, Terms]]
    discriminator: Discriminator
    criterion: Criterion
    train: Side
    val: Side
    fakes: Side
    seed: int
    iteration: int
    step: int = 0
    collapsed: bool = False
    kept: Snapshot | None = None  # what was there before the first of the last flat steps
    band: Band = field(init=False)
    collapse: Collapse = field(init=False)

    def __post_init__(self) -> None:
        settings, device = self.settings, self.criterion.device
        self.discriminator.requires_grad_().eval()  # without dropout: see step_on_pairs
        self.optimizer = torch.optim.AdamW(  # no momentum and no decay, as in R3GAN
            self.discriminator.parameters(),
            settings.discriminator_learning_rate,
            betas=(0.0, 0.99),
            weight_decay=0.0,
            fused=True,
        )
        self.band = Band(
            settings.discriminator_steps,
            settings.min_discriminator_steps,
            settings.max_discriminator_steps,
            settings.min_accuracy,
            settings.max_accuracy,
        )
        self.collapse = Collapse(settings.collapse_gradient, settings.collapse_steps)
        self._reals, self._held_out = Reals(self.train, device), Reals(self.val, device)
        newest = slice(-settings.recent_fakes, None)
        labels = None if self.fakes.labels is None else self.fakes.labels[newest].to(device)
        self.recent = Side(self.fakes.latents[newest].to(device), labels)

    def play(self, model: Denoiser, parts: Parts) -> tuple[torch.Tensor, Terms]:
        """One step: (generator's loss, terms); the loss has a gradient in the model's weights.

        parts: what ``undo`` brings back if the discriminator collapses.
        """
        count, device = self.settings.samples_per_step, self.criterion.device
        # 1. Teach the discriminator on recent samples.
        taught = [self._teach(number) for number in range(self.band.steps)]
        # 2. Sample, with the classes of reals.
        real = self._reals.draw(count, self._stream("reals"))
        indices = range(self.step * count, (self.step + 1) * count)
        key = (self.seed, "train_diffusion", self.iteration, "samples")
        noise = noise_for(indices, tuple(real.latents.shape[1:]), *key).to(device)
        samples = self._sample(model, noise, real.labels)
        # 3. Judge. Every process judges all samples, and goes back through its own.
        leaf = samples.detach().requires_grad_()
        on_fake = self._logits(leaf, real.labels)
        with torch.no_grad():
            on_real = self._logits(real.latents, real.labels)
            held_out = self._held_out.draw(count, self._stream("held_out"))
            on_held_out = self._logits(held_out.latents, held_out.labels)
        loss, terms = self.judge(on_real, on_fake)
        (gradient,) = torch.autograd.grad(loss, leaf)
        through = ((samples - samples.detach()) * gradient).sum()  # 0, with the loss's gradient
        # 4. Follow the accuracy on what the discriminator has not seen, and its gradient.
        right = accuracy(on_held_out, on_fake.detach())
        slope = count * gradient.flatten(1).norm(dim=1).mean()
        terms |= {
            "discriminator_accuracy": right,
            "discriminator_steps": right.new_tensor(float(self.band.steps)),
            "penalty": torch.stack([one.penalty for one in taught]).mean(),
            "discriminator_grad_norm": torch.stack([one.grad_norm for one in taught]).mean(),
            "sample_grad_norm": slope,
        }
        self._follow(float(right), float(slope), parts)
        # 5. Remember the samples.
        self._remember(Side(samples.detach(), real.labels))
        self.step += 1
        return loss.detach() + through, terms

    def undo(self, parts: Parts) -> None:
        """After a collapse: ``parts`` as they were before the first flat step."""
        assert self.kept is not None
        restore(parts, self.kept)

    def collapse_report(self) -> str:
        """What happened, in one line, and what may prevent it."""
        settings, first = self.settings, self.step - self.settings.collapse_steps
        return (
            f"the discriminator collapsed: after step {first}, its gradient at the samples was "
            f"below objective.collapse_gradient={settings.collapse_gradient:g} for "
            f"{counted(settings.collapse_steps, 'step')}; the round ended with the weights of step "
            f"{first}; lower train_diffusion.learning_rate, or raise "
            "objective.discriminator_steps and the bound above it"
        )

    def validate(self, model: Denoiser) -> dict[str, float]:
        """The terms of ``judge`` for samples of ``model`` and held-out reals.

        Their noise is always the same, but the discriminator learns from epoch to epoch.
        """
        count, device = min(len(self.val), VALIDATED), self.criterion.device
        labels = None if self.val.labels is None else self.val.labels[:count].to(device)
        real, shape = self.val.latents[:count].to(device), tuple(self.val.latents.shape[1:])
        on_fake = []
        with eval_mode(model):
            for part in batches(count, self.settings.samples_per_step):
                own = None if labels is None else labels[part.start : part.stop]
                noise = noise_for(part, shape, self.seed, "validation", "samples").to(device)
                on_fake.append(self._logits(self._sample(model, noise, own), own))
            _, terms = self.judge(self._logits(real, labels), torch.cat(on_fake))
        return {name: float(value) for name, value in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``play`` changes."""
        values = {"step": self.step, "collapsed": self.collapsed, "kept": self.kept}
        recent = {"latents": self.recent.latents, "labels": self.recent.labels}
        return {**values, "recent": recent, **states(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self._parts, state)
        self.step, self.collapsed, self.kept = (state[k] for k in ("step", "collapsed", "kept"))
        latents, labels = state["recent"]["latents"], state["recent"]["labels"]
        device = self.criterion.device
        self.recent = Side(latents.to(device), None if labels is None else labels.to(device))

    @property
    def _parts(self) -> dict[str, Stateful]:
        return {
            "discriminator": self.discriminator,
            "optimizer": self.optimizer,
            "band": self.band,
            "collapse": self.collapse,
        }

    def _follow(self, accuracy: float, slope: float, parts: Parts) -> None:
        """Set the next number of the discriminator's steps, and look whether it has gone flat."""
        self.band.update(accuracy)
        self.collapse.update(slope)
        if self.collapse.begins:
            self.kept = copy.deepcopy(states(parts))
        elif not self.collapse.flat_steps:
            self.kept = None
        self.collapsed = self.collapse.complete

    def _remember(self, samples: Side) -> None:
        """``recent`` with these samples; the oldest ones go."""
        newest = slice(-self.settings.recent_fakes, None)
        labels = self.recent.labels
        if labels is not None and samples.labels is not None:
            labels = torch.cat([labels, samples.labels])[newest]
        self.recent = Side(torch.cat([self.recent.latents, samples.latents])[newest], labels)

    def _stream(self, *key: int | str) -> torch.Generator:
        return generator(self.seed, "train_diffusion", self.iteration, "opponent", self.step, *key)

    def _teach(self, number: int) -> PairStep:
        """One step of the discriminator on random recent samples, paired with reals."""
        count, stream = self.settings.samples_per_step, self._stream("teach", number)
        rows = torch.randint(len(self.recent), (count,), generator=stream)
        rows = rows.to(self.criterion.device)
        labels = None if self.recent.labels is None else self.recent.labels[rows]
        real = self._reals.draw_like(labels, count, stream)
        pairs = Pairs(real.latents, self.recent.latents[rows], labels)
        return step_on_pairs(self.discriminator, self.optimizer, pairs, self.settings, stream)

    def _logits(self, latents: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        logits: torch.Tensor = self.discriminator(latents, labels=labels)
        return logits

    def _sample(
        self, model: Denoiser, noise: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """Samples (B, C, H, W) from noise (B, C, H, W), as stage generate makes them.

        Each process samples its share. The network is in evaluation mode whenever it is called,
        also when the backward pass calls it again.
        """
        criterion, settings = self.criterion, self.settings

        def sample(own: torch.Tensor, *own_labels: torch.Tensor) -> torch.Tensor:
            def evaluated(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
                training = model.training
                model.eval()
                output: torch.Tensor = model(noisy, time, *own_labels)
                model.train(training)
                return output

            return sample_with_gradient(
                criterion.process,
                evaluated,
                own,
                settings.num_inference_steps,
                settings.gradient_steps,
            )

        with autocast(criterion.precision, criterion.device):
            given = (noise,) if labels is None else (noise, labels)
            return split_across_processes(sample, *given)

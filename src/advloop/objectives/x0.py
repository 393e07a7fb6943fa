"""Objective x0: a frozen discriminator judges the one-step predictions that mean something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from advloop.objectives import Recipe
from advloop.params.section import Section
from advloop.params.training import AlphaBar

if TYPE_CHECKING:
    import torch

    from advloop.diffusion.batch import Batch, Objective, Rows, Terms

MAX_SNR = 5.0  # gamma of Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting"


class X0Params(Section):
    name: Literal["x0"]
    uses_discriminator: Literal[True]
    weight: NonNegativeFloat  # of discriminator_loss beside noise_loss
    min_alpha_bar: AlphaBar  # below it no prediction is judged
    max_gradient_ratio: PositiveFloat  # adversarial over noise gradient
    ramp_steps: NonNegativeInt  # optimizer steps until the weight is reached


@dataclass
class AdaptiveWeight:
    """``weight``, ramped in over ramp_steps, and capped by a smoothed gradient-norm ratio.

    The cap is max_ratio times the exponential moving average (decay) of the objective's
    gradient_ratio: averaged over the last steps, the adversarial gradient at the network's
    output is at most max_ratio times the noise loss's. The raw ratio of VQGAN (Esser et al.
    2021, Eq. 7) jumps with every batch; its average does not.
    """

    weight: float
    max_ratio: float
    ramp_steps: int
    decay: float = 0.9
    step: int = 0
    ratio: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that ``update`` changes."""
        return {"step": self.step, "ratio": self.ratio}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.ratio = state["step"], state["ratio"]

    def current(self) -> float | torch.Tensor:
        """The weight of the next step; 0 at the first step, before any ratio is known."""
        if self.ratio is None:
            return 0.0
        ramp = min(1.0, self.step / max(1, self.ramp_steps))
        return ramp * (self.max_ratio * self.ratio).clamp(max=self.weight)

    def update(self, terms: Terms) -> None:
        """Count one step and average in its gradient_ratio, detached and at least 0."""
        import torch

        self.step += 1
        # a batch below the gate has no adversarial gradient, so that its ratio has no bound
        ratio = terms["gradient_ratio"].clamp(max=self.weight / self.max_ratio)
        self.ratio = (
            ratio
            if self.ratio is None
            else torch.lerp(ratio, self.ratio.to(ratio.device), self.decay)
        )


def prediction_weights(
    alpha_bars: torch.Tensor, timesteps: torch.Tensor, min_alpha_bar: float
) -> torch.Tensor:
    """Weights (B,) in [0, 1] of one-step predictions: min(SNR, 5) / 5, and 0 below the gate.

    SNR = alpha_bar / (1 - alpha_bar). An error in eps reaches x0 multiplied by SNR^-0.5: at low
    alpha_bar every model's prediction is a blur.
    """
    alpha_bar = alpha_bars[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=MAX_SNR) / MAX_SNR * (alpha_bar >= min_alpha_bar)


def logits_of_predictions(batch: Batch, min_alpha_bar: float) -> torch.Tensor:
    """Logits (B,) of the discriminator for the one-step predictions.

    A noise-conditioned discriminator sees them re-noised (Sauer et al. 2024, section 3.2) to
    timesteps above the gate, as in its own training. Each prediction takes the noise and the
    scaled timestep of the sample before it. Samples are in random order, so this needs no
    further random numbers.
    """
    predictions = batch.predicted_x0()
    if not getattr(batch.discriminator, "noise_conditioned", False):
        return batch.logits(predictions)
    limit = batch.process.timestep_limit(min_alpha_bar, "objective.min_alpha_bar")
    eps, timesteps = batch.noise_before()
    timesteps = timesteps * limit // batch.process.num_train_timesteps
    noisy = batch.process.add_noise(predictions, eps, timesteps)
    return batch.logits(noisy, timesteps)


def make_x0(params: X0Params) -> Objective:
    """Gated and SNR-weighted ``seed``.

    loss = noise_loss + weight * discriminator_loss, the weighted mean of -log sigmoid(D) over
    the batch; viability_score is the weighted mean of sigmoid(D). Both are 0 in a batch
    whose alpha_bars are all below the gate. gradient_ratio is the norm of the noise loss's
    gradient over the norm of discriminator_loss's, both at the network's output;
    ``AdaptiveWeight`` caps the weight with it (VQGAN: Esser et al. 2021, Eq. 7).
    """
    from torch.nn import functional as F

    def x0(batch: Batch) -> tuple[torch.Tensor, Terms]:
        def weigh(rows: Rows) -> torch.Tensor:
            return prediction_weights(
                batch.process.alpha_bars, rows.timesteps, params.min_alpha_bar
            )

        noise_loss = batch.noise_loss()
        weights = batch.relative_weights("predictions", weigh)
        logits = logits_of_predictions(batch, params.min_alpha_bar)
        loss = (weights * F.softplus(-logits)).mean()
        terms = {
            "noise_loss": noise_loss.detach(),
            "discriminator_loss": loss.detach(),
            "viability_score": (weights * logits.detach().sigmoid()).mean(),
        }
        if loss.requires_grad:
            terms["gradient_ratio"] = _gradient_norm(noise_loss, batch) / _gradient_norm(
                loss, batch
            ).clamp(min=1e-12)
        return noise_loss + batch.weight * loss, terms

    return x0


def _gradient_norm(loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    import torch

    norm: torch.Tensor = torch.autograd.grad(loss, batch.output, retain_graph=True)[0].norm()
    return norm


RECIPE = Recipe(
    X0Params,
    make_x0,
    adaptive=lambda p: AdaptiveWeight(p.weight, p.max_gradient_ratio, p.ramp_steps),
    against_reference=False,
    evaluations=3,
    trains_on="reals",
    merge=None,
    hands_on="best_epoch",
)

"""The weight of discriminator_loss over the steps of one training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from advloop.objectives.base import Terms


@dataclass
class AdaptiveWeight:
    """``weight``, ramped in over ramp_steps, and capped by a smoothed gradient-norm ratio.

    The cap is max_ratio times the exponential moving average (decay) of the objective's
    gradient_ratio: on average over the last steps, the adversarial gradient in the network's
    output is at most max_ratio times that of the noise loss. The raw ratio of VQGAN (Esser
    et al. 2021, Eq. 7) follows single batches; its average does not.
    """

    weight: float
    max_ratio: float
    ramp_steps: int
    decay: float = 0.9
    step: int = 0
    ratio: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """What ``update`` changes."""
        return {"step": self.step, "ratio": self.ratio}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.ratio = state["step"], state["ratio"]

    def current(self) -> float | torch.Tensor:
        """For the next step; 0 at the first one, where no ratio is known yet."""
        if self.ratio is None:
            return 0.0
        ramp = min(1.0, self.step / max(1, self.ramp_steps))
        return ramp * (self.max_ratio * self.ratio).clamp(max=self.weight)

    def update(self, terms: Terms) -> None:
        """Count one step and note its gradient_ratio, detached and not negative."""
        self.step += 1
        # a batch below the gate has no adversarial gradient, and a ratio without bound
        ratio = terms["gradient_ratio"].clamp(max=self.weight / self.max_ratio)
        self.ratio = (
            ratio
            if self.ratio is None
            else torch.lerp(ratio, self.ratio.to(ratio.device), self.decay)
        )

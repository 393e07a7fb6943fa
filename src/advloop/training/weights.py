"""The weights that a training of the diffusion model changes, and their moving average."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from advloop.models.denoiser import Denoiser, copy_of


def average_decay(updates: int, decay: float) -> float:
    """The decay of the average's next update, after ``updates`` of them: in [0, ``decay``].

    min(decay, (1 + n) / (10 + n)), as in diffusers' EMAModel; EDM (Karras et al. 2022) ramps its
    half-life up, too, in a training from scratch. At the full decay from the start, a training of
    few steps would end with an average that is mostly the initial weights.
    """
    return min(decay, (1 + updates) / (10 + updates))


def average_of(denoiser: Denoiser, decay: float) -> AveragedModel:
    """The moving average of the weights of ``denoiser``; its first update copies them.

    Its state holds the number of updates, so that a resumed average goes on with the same decays.
    Frozen weights are those of ``denoiser`` themselves.
    """

    def update(averaged: PARAM_LIST, current: PARAM_LIST, count: torch.Tensor | int) -> None:
        # count is on the weights' device, and reading it would wait for every step
        updates = int(average.n_averaged)
        get_ema_multi_avg_fn(average_decay(updates, decay))(averaged, current, count)

    average = AveragedModel(nn.Module(), multi_avg_fn=update)
    average.module = copy_of(denoiser)  # where the class itself would copy frozen weights, too
    return average


@dataclass(frozen=True)
class Trained:
    """What a training changes of ``module``, for snapshots: all but its frozen weights."""

    module: nn.Module

    def state_dict(self) -> dict[str, torch.Tensor]:
        frozen = {name for name, w in self.module.named_parameters() if not w.requires_grad}
        return {k: v for k, v in self.module.state_dict().items() if k not in frozen}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.module.load_state_dict(self.module.state_dict() | state)


def trained_weights(denoiser: nn.Module) -> list[nn.Parameter]:
    """All weights, or those of the adapter beside frozen ones."""
    return [weight for weight in denoiser.parameters() if weight.requires_grad]


def step_bytes(weights: int, trained: int, copies: int = 0) -> int:
    """Bytes that a training keeps in float32 beside activations.

    weights: of the network, an adapter included. trained: those with a gradient, two moments of
    AdamW and an average. copies: of the starting model, as of a reference; none beside an adapter.
    """
    return 4 * (weights * (1 + copies) + 4 * trained)

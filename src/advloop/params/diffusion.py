"""Parameters of the diffusion process, its network and the base model."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import choice, number

BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}  # first and last, as usual


@dataclass
class DiffusionParams:
    num_train_timesteps: int = number(2, 10_000)  # beyond, linear alpha_bar is 0 in float32
    beta_schedule: str = choice("linear", "scaled_linear", "squaredcos_cap_v2")
    prediction_type: str = choice("epsilon", "v_prediction", "sample")
    beta_start: float | None = number(0, 0.999, open_low=True, default=None)  # None: as usual
    beta_end: float | None = number(0, 0.999, open_low=True, default=None)

    def betas(self) -> tuple[float, float] | None:
        """First and last beta; None for a schedule that is not drawn between two."""
        if self.beta_schedule not in BETAS:
            return None
        start, end = BETAS[self.beta_schedule]
        return (
            start if self.beta_start is None else self.beta_start,
            end if self.beta_end is None else self.beta_end,
        )


@dataclass
class UNetParams:
    block_out_channels: list[int] = number(1)  # one entry a level, highest resolution first
    layers_per_block: int = number(1)
    attention_levels: list[int] = number(0)  # levels with self-attention; 0 is the highest
    norm_num_groups: int = number(1)  # must divide every channel count


@dataclass
class BaseParams:
    pretrained: str | None  # local diffusers folder or state dict, or None to train
    epochs: int = number(1)
    samples_per_epoch: int | None = number(1)  # None: every training latent once
    batch_size: int = number(1)
    learning_rate: float = number(0, open_low=True)
    warmup_steps: int = number(0)
    ema_decay: float = number(0, 0.99999)
    grad_clip: float = number(0, open_low=True)  # largest global gradient norm
    eval_interval: int = number(1)  # epochs
